"""The broker's plugins: the door's verdict for who comes in, the policy's for every topic."""

from dataclasses import dataclass
from typing import Any

from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session


class DoorAuth(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    """A session counts only when it came in by the door. `config.door` has `admitted(client id, user)`."""

    @dataclass
    class Config:
        door: Any

    config: Config

    async def authenticate(self, *, session: Session) -> bool | None:
        return bool(self.config.door.admitted(session.client_id, session.username))


class PolicyTopics(BaseTopicPlugin):  # type: ignore[misc]
    """`config.policy` is a `TopicPolicy`. Receiving needs no word: what was subscribed was allowed."""

    @dataclass
    class Config:
        policy: Any

    config: Config

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        user = (session.username if session is not None else None) or ""
        match action:
            case Action.PUBLISH:
                return bool(self.config.policy.may_publish(user, topic or ""))
            case Action.SUBSCRIBE:
                return bool(self.config.policy.may_subscribe(user, topic or ""))
            case Action.RECEIVE:
                return True
        return False
