"""JupyterLab as it really runs: in an overlay root, from a read-only tool folder, with an environment of its own."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from portico_agent.init.configuration import REACHING_OUT
from portico_agent.readiness import free_port, until_answering
from portico_agent.tools.jupyterlab import JupyterLab
from portico_agent.tools.tool import Launch, Site
from portico_gateway.compute.local.tool_install import ToolInstaller
from portico_shared.clock import SystemClock
from support.studio_init import Puppet, StudioInit, studio_init

TOOLS = Path(__file__).resolve().parents[3] / "build" / "test-tools-in-place"
"""JupyterLab as the installer makes it, but for use where it lies. Kept between runs."""
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces, mounts"),
    pytest.mark.timeout(300),
]


@dataclass
class Studio:
    init: StudioInit
    puppet: Puppet
    site: Site

    async def run(self, launch: Launch) -> tuple[int, str]:
        return await self.puppet.run(*launch.argv, root_env=dict(launch.env), cwd=launch.cwd)

    async def shell(self, text: str) -> tuple[int, str]:
        launch = JupyterLab().launch(self.site)
        return await self.puppet.run("/bin/sh", "-c", text, root_env=dict(launch.env), cwd="/workspace")


async def installed() -> Path:
    TOOLS.mkdir(parents=True, exist_ok=True)
    installer = ToolInstaller(TOOLS, moved=False)
    await installer.install("jupyter", print)
    folder = installer.folder("jupyter")
    assert folder is not None
    return folder


@asynccontextmanager
async def prepared_studio() -> AsyncIterator[Studio]:
    jupyterlab = (await installed()).resolve()
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        tools = init.folder / "tools"
        tools.mkdir()
        (tools / "jupyterlab").symlink_to(jupyterlab)
        binds = [{"source": str(path), "target": str(path)} for path in (jupyterlab, tools)]
        assert (await puppet.ask("mount", root=init.overlay_root(binds=binds)))["ok"]
        reaching_out = {name: os.environ[name] for name in REACHING_OUT if name in os.environ}
        where = Site(
            port=free_port(), home="/root", workspace="/workspace", tools=tools, whole_root=True,
            environment=reaching_out,
        )  # fmt: skip
        studio = Studio(init, puppet, where)
        for step in JupyterLab().prepare(where):
            code, said = await studio.run(step)
            assert code == 0, said
        yield studio


async def test_lab_answers_with_the_studio_s_own_kernel_and_no_credential():
    async with prepared_studio() as studio, aiohttp.ClientSession() as session:
        launch = JupyterLab().launch(studio.site)
        started = await studio.puppet.ask("spawn", role="tool", argv=launch.argv, env=launch.env, cwd=launch.cwd)
        assert started["ok"], started
        await until_answering(studio.site.port, JupyterLab().probe_path, SystemClock())
        base, host = f"http://127.0.0.1:{studio.site.port}", {"Host": "a3fa1b2c4.studio.localhost:8000"}
        async with session.get(f"{base}/api/kernelspecs", headers=host) as answer:
            specs = (await answer.json())["kernelspecs"]
        assert list(specs) == ["python3"]
        assert specs["python3"]["spec"]["argv"][0] == "/opt/venv/bin/python"
        async with session.get(f"{base}/lab", headers=host) as answer:
            page = await answer.text()
        assert answer.status == 200 and "collaboration" in page
        async with session.get(
            f"{base}/lab/api/settings/@jupyterlab/apputils-extension:notification", headers=host
        ) as a:
            assert (await a.json())["schema"]["properties"]["fetchNews"]["default"] == "false"
        await studio.puppet.ask("end", grace=20)
        assert (await studio.puppet.event("ended"))["code"] == 0


async def test_kernel_computes_and_pip_changes_the_studio_s_environment():
    probe = (
        "from jupyter_client.manager import start_new_kernel; m, c = start_new_kernel(kernel_name='python3');"
        "c.execute_interactive('import sys; print(sys.prefix, 6 * 7)', timeout=60); m.shutdown_kernel(now=True)"
    )
    async with prepared_studio() as studio:
        python = f"{studio.site.tools}/jupyterlab/bin/python"
        code, said = await studio.shell(f'{python} -c "{probe}"')
        assert code == 0 and "/opt/venv 42" in said, said
        code, said = await studio.shell("command -v pip && command -v python")
        assert said.split() == ["/opt/venv/bin/pip", "/opt/venv/bin/python"]
        code, said = await studio.shell(
            "pip install -q --no-input cowsay && python -c 'import cowsay; print(cowsay.__file__)'"
        )
        assert code == 0 and "/opt/venv/lib" in said, said
        code, said = await studio.shell(
            "pip install -q --no-input 'wcwidth<0.3' && python -c 'import wcwidth; print(wcwidth.__file__)'"
        )
        assert code == 0 and "/opt/venv/lib" in said, ("a package of the kernel's can be replaced", said)


async def test_second_start_keeps_what_was_installed_and_terminals_find_it():
    async with prepared_studio() as studio:
        folder = "$(python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')"
        await studio.shell(f"echo 'answer = 42' > {folder}/mine.py")
        for step in JupyterLab().prepare(studio.site):
            assert (await studio.run(step))[0] == 0
        code, said = await studio.shell(
            "python -c 'import mine; print(mine.answer)'; HOME=/workspace /bin/bash -lc 'command -v python'"
        )
        assert code == 0 and said.split() == ["42", "/opt/venv/bin/python"]


async def test_tool_folder_cannot_be_changed_from_inside():
    async with prepared_studio() as studio:
        code, said = await studio.shell(f"touch {(await installed()).resolve()}/bin/mine")
        assert code != 0 and "Read-only" in said
