from support.edge_world import edge_world


async def test_signed_in_visitor_reaches_the_tool():
    async with edge_world() as world:
        heads = await world.saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        response = await world.get("GET /lab?x=%2F HTTP/1.1")
        assert (response.status, response.body) == (200, b"ok")
        assert heads[0].startswith(b"GET /lab?x=%2F HTTP/1.1\r\n")
