"""Which tool a plan names."""

from portico_agent.errors import ToolError
from portico_agent.tools.custom import CustomTool
from portico_agent.tools.jupyterlab import JupyterLab
from portico_agent.tools.tool import Tool

TOOLS: dict[str, Tool] = {"jupyter": JupyterLab(), "jupyterlab": JupyterLab(), "custom": CustomTool()}


def choose_tool(name: str) -> Tool:
    """Raises ToolError for a tool this agent does not know."""
    try:
        return TOOLS[name]
    except KeyError:
        known = ", ".join(sorted(TOOLS))
        raise ToolError(
            f"this agent knows no tool '{name[:60]}' (it knows {known}): is the agent out of date?"
        ) from None
