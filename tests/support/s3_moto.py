"""The S3 server of `s3_host` as a program: `python s3_moto.py ADDRESS PORT BUCKET`, told 'away' or 'back' on its input.

Away, its port refuses connections; back, it has everything that it had. Each word is answered with itself.
"""

import logging
import socket
import sys

import boto3
from moto.moto_server.threaded_moto_server import ThreadedMotoServer


def main(address: str, port: int, bucket: str) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    socket.getfqdn = str  # type: ignore[assignment]  # there is no name server here to wait for
    server = ThreadedMotoServer(address, port, verbose=False)
    server.start()
    boto3.client(
        "s3",
        endpoint_url=f"http://{address}:{port}",
        region_name="us-east-1",
        aws_access_key_id="anybody",
        aws_secret_access_key="anything",
    ).create_bucket(Bucket=bucket)
    print("back", flush=True)
    for line in sys.stdin:
        if line.strip() == "away":
            server.stop()
        else:
            server.start()
        print(line.strip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
