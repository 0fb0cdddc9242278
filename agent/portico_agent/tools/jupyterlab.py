"""JupyterLab with collaboration. It lies read-only under the tools folder; what people install goes elsewhere.

Kernels, terminals, `pip` and `%pip` use the studio's own environment (`Site.venv`), made by `studio_venv.py` at each
start where it is missing.
"""

import json
from pathlib import Path

from portico_agent.errors import ToolError
from portico_agent.tools.tool import Launch, Site, base_environment

FOLDER_NAMES = ("jupyterlab", "jupyter")
RUNTIME = "/tmp/jupyter-runtime"  # noqa: S108 - the studio's own /tmp: connection files must not be checkpointed
BASH_OR_SH = ["/bin/sh", "-c", "if [ -x /bin/bash ]; then exec /bin/bash; else exec /bin/sh; fi"]
"""Not a login shell: /etc/profile would take the studio's environment off PATH again."""


class JupyterLab:
    name = "jupyter"
    probe_path = "/api"

    def prepare(self, site: Site) -> tuple[Launch, ...]:
        script = Path(__file__).with_name("studio_venv.py").read_text()
        links = "/opt/portico/kernel" if site.whole_root else f"{site.home}/.local/share/portico-kernel"
        profile = "/etc/profile.d/portico.sh" if site.whole_root else ""
        argv = (str(self._python(site)), "-I", "-c", script, site.venv, links, profile)
        return (Launch(argv=argv, env=base_environment(site), cwd="/"),)

    def launch(self, site: Site) -> Launch:
        env = {
            **base_environment(site),
            "VIRTUAL_ENV": site.venv,
            "JUPYTER_PATH": f"{site.venv}/share/jupyter",
            "JUPYTER_CONFIG_PATH": f"{site.venv}/etc/jupyter",
            "JUPYTER_RUNTIME_DIR": RUNTIME,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            **site.environment,
        }
        return Launch(
            argv=(str(self._python(site)), "-m", "jupyterlab", *self._flags(site)), env=env, cwd=site.workspace
        )

    def _flags(self, site: Site) -> tuple[str, ...]:
        return (
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={site.port}",
            "--ServerApp.port_retries=0",
            "--ServerApp.base_url=/",
            "--ServerApp.allow_remote_access=True",  # the Host is the studio's own name; who may come in was decided
            "--ServerApp.trust_xheaders=True",
            "--IdentityProvider.token=",
            "--PasswordIdentityProvider.hashed_password=",
            f"--ServerApp.root_dir={site.workspace}",
            "--ServerApp.quit_button=False",  # it would end the studio for everyone
            f"--ServerApp.terminado_settings={json.dumps({'shell_command': BASH_OR_SH})}",
            "--FileContentsManager.delete_to_trash=False",  # nothing empties it, and the quota counts it
            f"--SQLiteYStore.db_path={RUNTIME}/ystore.db",
            "--LabApp.extension_manager=readonly",  # its folder is; prebuilt extensions come with pip into the venv
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.news_url=None",
        )

    def _python(self, site: Site) -> Path:
        for name in FOLDER_NAMES:
            found = site.tools / name / "bin" / "python"
            if found.exists() or found.is_symlink():
                return found
        raise ToolError(f"JupyterLab is not installed in {site.tools}: stop the studio and start it again")
