"""What happens to what was found: per source, and where wanted per kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptwright.core.errors import UserError
from gptwright.corpus.privacy.spans import KINDS, NAME_KINDS

Action = Literal["keep", "mask", "pseudonymize", "drop"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True)
class Policy:
    """What happens to each kind.

    Attributes:
        default: for the kinds that ``kinds`` does not name.
        kinds: exceptions by kind.

    Secrets are masked under ``keep`` and under ``pseudonymize`` too, unless ``kinds`` says otherwise: a person may have the right to train
    on addresses, but a key that works is of no use to a model and of much use to whoever asks it.
    """

    default: Action = "mask"
    kinds: Mapping[str, Action] = field(default_factory=dict)

    @classmethod
    def of(cls, given: "str | Mapping[str, str] | Policy") -> "Policy":
        """A policy from what stands in a configuration: an action, or actions by kind with ``default`` for the rest.

        Raises:
            UserError: no such action or kind.
        """
        if isinstance(given, Policy):
            return given
        table = {"default": given} if isinstance(given, str) else {"default": "mask", **given}
        for kind, action in table.items():
            if kind != "default" and kind.upper() not in (*KINDS, *NAME_KINDS):
                raise UserError(
                    f"no kind of personal data is called {kind!r}", fix=f"Use one of {', '.join((*KINDS, *NAME_KINDS))}"
                )
            if action not in ACTIONS:
                raise UserError(
                    f"{action!r} is nothing to do with personal data", fix=f"Use one of {', '.join(ACTIONS)}"
                )
        default = cast(Action, table.pop("default"))
        return cls(default, {kind.upper(): cast(Action, action) for kind, action in table.items()})

    def action(self, kind: str) -> Action:
        """What happens to a kind."""
        if kind in self.kinds:
            return self.kinds[kind]
        return "mask" if kind == "SECRET" and self.default in ("keep", "pseudonymize") else self.default

    @property
    def needs_key(self) -> bool:
        """Whether anything is replaced by a keyed name."""
        return any(self.action(kind) == "pseudonymize" for kind in (*KINDS, *NAME_KINDS))

    def drops(self, counts: pa.Table) -> npt.NDArray[np.bool_]:
        """Which documents fall: those that hold anything of a kind whose action is drop.

        Args:
            counts: columns ``pii_<kind>``, one row a document.

        Returns:
            (documents,) bool.
        """
        found = np.zeros(counts.num_rows, bool)
        for kind in (*KINDS, *NAME_KINDS):
            column = f"pii_{kind.lower()}"
            if self.action(kind) == "drop" and column in counts.column_names:
                found |= counts[column].to_numpy() > 0
        return found
