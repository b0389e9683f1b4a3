"""``gptwright.load``: a model by name, directory, GGUF file or ``provider:name``, with one way to generate and to chat."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from gptwright.core.config import build_config
from gptwright.core.errors import UserError
from gptwright.gateway.resolve import is_remote
from gptwright.project.models import locate

if TYPE_CHECKING:
    from gptwright.infer.config import GenerationConfig
    from gptwright.project.project import Project

Messages = Sequence[Mapping[str, Any]]


class Backend(Protocol):
    """Where the text comes from: an engine here, or a provider elsewhere."""

    def complete(self, prompt: str, options: Mapping[str, Any]) -> Iterator[str]: ...
    def chat(self, messages: Messages, options: Mapping[str, Any]) -> Iterator[str]: ...


class Model:
    """A loaded model. Options are those of ``infer.GenerationConfig``: max_tokens, temperature, top_p, seed, stop and so on."""

    def __init__(self, identity: str, backend: Backend) -> None:
        self.id = identity
        self._backend = backend

    @overload
    def generate(self, prompt: str, *, stream: Literal[True], **options: Any) -> Iterator[str]: ...
    @overload
    def generate(self, prompt: str, *, stream: Literal[False] = False, **options: Any) -> str: ...
    def generate(self, prompt: str, *, stream: bool = False, **options: Any) -> Iterator[str] | str:
        """Continue a text.

        Args:
            prompt: the beginning.
            stream: give pieces as they come instead of the whole.
            options: see the class.
        """
        pieces = self._backend.complete(prompt, options)
        return pieces if stream else "".join(pieces)

    @overload
    def chat(self, messages: Messages, *, stream: Literal[True], **options: Any) -> Iterator[str]: ...
    @overload
    def chat(self, messages: Messages, *, stream: Literal[False] = False, **options: Any) -> str: ...
    def chat(self, messages: Messages, *, stream: bool = False, **options: Any) -> Iterator[str] | str:
        """Answer a conversation.

        Args:
            messages: ``{"role": "user", "content": "..."}`` and so on.
            stream: give pieces as they come instead of the whole.
            options: see the class.
        """
        pieces = self._backend.chat(messages, options)
        return pieces if stream else "".join(pieces)


def load(name: str | None = None, *, project: "Project | str | None" = None) -> Model:
    """Load a model.

    Args:
        name: an id, an alias such as ``production``, a model directory, a GGUF file, or ``PROVIDER:MODEL``
            (``provider:PROVIDER`` takes the model it offers); None means production, else the newest.
        project: where names are looked up; None looks for a project upward from here.

    Raises:
        UserError: nothing of that name.
    """
    from gptwright.project.project import Project

    if isinstance(project, str):
        project = Project.open(project)
    elif project is None:
        try:
            project = Project.open()
        except UserError as error:
            if "no gptwright.toml" not in str(error):
                raise
    if name is not None and is_remote(name) and not name.endswith(".gguf") and project is not None:
        remote = _Remote(name if "provider" in project.settings.providers else name.removeprefix("provider:"), project)
        return Model(remote.name, remote)
    if name is not None and name.endswith(".gguf"):
        from gptwright.project.exchange import open_gguf

        return Model(name, _Local(open_gguf(name)))
    ref = locate(project, name)
    return Model(ref.id, _Local(str(ref.path)))


class _Local:
    def __init__(self, folder: str) -> None:
        from gptwright.infer.engine import Engine

        self._engine = Engine.load(folder)

    def complete(self, prompt: str, options: Mapping[str, Any]) -> Iterator[str]:
        for piece in self._engine.stream(self._engine.encode_prompt(prompt), _settings(options)):
            yield piece.text

    def chat(self, messages: Messages, options: Mapping[str, Any]) -> Iterator[str]:
        for piece in self._engine.chat(messages, _settings(options), stream=True):
            yield piece.text


def _settings(options: Mapping[str, Any]) -> "GenerationConfig":
    """Options as a checked configuration; UserError names each that is wrong."""
    from gptwright.infer.config import GenerationConfig

    return build_config(GenerationConfig, options, where="options")


class _Remote:
    """``PROVIDER:MODEL``; a provider alone means its ``production``, or the first model that it lists."""

    def __init__(self, name: str, project: "Project") -> None:
        from gptwright.gateway.resolve import providers, resolve

        settings = project.settings
        limits = [settings.gateway.usd_per_day, *(one.usd_per_day for one in settings.providers.values())]
        control = project.control if any(limits) else None
        known = providers(settings.providers, settings.gateway, control, writes=True)
        self._provider, self._model = resolve(name, known)
        if not self._model:
            offered = self._provider.models()
            if not offered:
                raise UserError("it offers no model", where=name)
            self._model = "production" if "production" in offered else offered[0]
        self.name = f"{self._provider.name}:{self._model}"

    def complete(self, prompt: str, options: Mapping[str, Any]) -> Iterator[str]:
        # Hosted models answer chats; a bare text to continue is put to them as one.
        yield from self.chat([{"role": "user", "content": prompt}], options)

    def chat(self, messages: Messages, options: Mapping[str, Any]) -> Iterator[str]:
        from gptwright.gateway.provider import ChatSettings

        known = {k: v for k, v in options.items() if k in ChatSettings.__dataclass_fields__}
        # Left at what means "off", an option asks for nothing; any other value would be dropped in silence.
        if lost := [k for k, v in options.items() if k not in known and v not in (None, 0, 0.0, 1.0)]:
            raise UserError(f"a remote model takes no {', '.join(lost)}", where=self.name, fix="Leave it out")
        for delta in self._provider.chat(self._model, [dict(m) for m in messages], ChatSettings(**known)):
            yield delta.text
