"""Look at the pages: `python tests/support/serve_ui.py [port]` serves a sample lab; sign in as ana, password below.

With `--play` the starting studio goes on by itself, so that the start page can be watched.
"""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from portico_gateway.studios.values import ProgressStep, Status
from support.web_world import PASSWORD, sample_world, serve


async def main(port: int, play: bool) -> None:
    world = sample_world(port)
    async with serve(world, port):
        print(f"http://portico.localhost:{port}/   ana · {PASSWORD}", flush=True)
        steps = ("provisioning", "preparing", "restoring", "launching")
        while True:
            await asyncio.sleep(1)
            for row in [r for r in world.rows.values() if play and r.status is Status.STARTING]:
                told = row.progress
                if len(told) < 2 * len(steps):
                    state = "started" if len(told) % 2 == 0 else "done"
                    step = ProgressStep(world.clock.now(), steps[len(told) // 2], state)
                    world.change(row.session_id, "progress", progress=(*told, step))
                    world.write_log(row.session_id, f"agent: {step.name} {state}\n")
                else:
                    world.change(row.session_id, status=Status.RUNNING)


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--play"]
    asyncio.run(main(int(arguments[0]) if arguments else 8000, "--play" in sys.argv))
