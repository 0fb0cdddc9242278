"""A program of the person's own that serves HTTP on $CONNECT_TOOL_PORT."""

from portico_agent.errors import ToolError
from portico_agent.tools.tool import Launch, Site, base_environment


class CustomTool:
    name = "custom"
    probe_path = "/"

    def prepare(self, _site: Site) -> tuple[Launch, ...]:
        return ()

    def launch(self, site: Site) -> Launch:
        if not site.command:
            raise ToolError("this studio has no command to start: give it one that listens on $CONNECT_TOOL_PORT")
        return Launch(argv=site.command, env=base_environment(site), cwd=site.workspace)
