"""Names of remote models: ``provider:model``."""

from collections.abc import Mapping

from gptwright.core.control import ControlStore
from gptwright.core.errors import UserError
from gptwright.gateway.config import GatewayConfig, ProviderConfig
from gptwright.gateway.provider import Provider
from gptwright.gateway.spend import Spend


def providers(
    sections: Mapping[str, ProviderConfig],
    gateway: GatewayConfig | None = None,
    control: ControlStore | None = None,
    writes: bool = False,
) -> dict[str, Provider]:
    """One provider for each ``[providers.NAME]`` section.

    Args:
        sections: by name.
        gateway: what holds for all together.
        control: where usage is kept, so that limits of a day outlive the process.
        writes: whether providers write usage themselves; a server does.
    """
    spend = Spend(sections, control, gateway.usd_per_day if gateway is not None else None, writes)
    return {name: Provider(name, config, spend) for name, config in sections.items()}


def is_remote(model: str) -> bool:
    """Whether a model's name is written ``provider:model``. A Windows path such as ``C:\\models`` is not."""
    name, mark, rest = model.partition(":")
    return bool(mark) and len(name) > 1 and bool(rest) and not rest.startswith(("//", "\\"))


def resolve(model: str, known: Mapping[str, Provider]) -> tuple[Provider, str]:
    """Find the provider of ``provider:model``.

    Args:
        model: the full name; only the first colon divides.
        known: providers by name.

    Returns:
        The provider and its own name for the model.

    Raises:
        UserError: no such provider.
    """
    name, _, rest = model.partition(":")
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise UserError(
            f"no provider named {name} (known: {names})",
            where=model,
            fix=f"Add a [providers.{name}] section with base_url, or correct the name",
        )
    return known[name], rest
