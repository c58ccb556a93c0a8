"""One way to make a command line from a pydantic config. No torch: arguments are checked before it loads.

    class TrackConfig(Config):
        \"\"\"Track expressed and internal emotion over a multi-turn rejection.\"\"\"
        run: Annotated[Path, Positional] = Field(description="a run folder")
        adapters: Annotated[tuple[str, ...], Flag("adapter")] = Field(("dpo",), description="...")
        turns: int = Field(8, ge=1, description="replies per conversation")

    def run(config: TrackConfig) -> Path: ...

    main = command(TrackConfig, run)

    if __name__ == "__main__":
        sys.exit(main())

A field `batch_size` is the flag `--batch-size`, unless `Flag` names another.
Sequences take `--adapter a --adapter b`, `--adapter a b` or `--adapter a,b`. A bool is `--dry-run`,
or `--x` / `--no-x` where it is on by default. Everything a user can get wrong ends in one line on stderr and
exit 2, everything else that is foreseen in one line and exit 1.

pydantic-settings is not used: its CLI reads environment variables and prints pydantic's own messages.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from emoprobe.errors import EmoprobeError, RunError, UserError

C = TypeVar("C", bound=BaseModel)

INTERRUPTED = 130
_MEMORY_FLAGS = ("batch_size", "n", "turns")


class Positional:
    """Marks a field as an argument without a flag: `run: Annotated[Path, Positional]`."""


@dataclass(frozen=True)
class Flag:
    """Names the flag of a field where it is not the field's own name: `Annotated[..., Flag("adapter")]`."""

    name: str


class Config(BaseModel):
    """Base for the config of a verb: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Main(Protocol):
    """The command line of a verb; `argv` is `sys.argv[1:]` unless given."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run it; the exit code."""
        ...


def command(config_cls: type[C], run: Callable[[C], Path | None]) -> Main:
    """The command line of a verb; the path that `run` returns is its last line on stdout.

    The verb is the last part of the module that defines `run`.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        verb = _verb(run)

        def job() -> None:
            config = parse(config_cls, verb, sys.argv[1:] if argv is None else argv)
            try:
                result = run(config)
            except EmoprobeError:
                raise
            except Exception as problem:
                foreseen = _foreseen(problem, config_cls)
                if foreseen is None:
                    raise
                raise foreseen from problem
            if result is not None:
                print(result, flush=True)

        return guarded(f"emoprobe {verb}", job)

    return main


def guarded(prog: str, job: Callable[[], None]) -> int:
    """Run a job; an EmoprobeError or Ctrl-C becomes one line on stderr and its exit code."""
    try:
        job()
    except EmoprobeError as problem:
        _say(prog, str(problem))
        return problem.exit_code
    except KeyboardInterrupt:
        _say(prog, "interrupted; what is done is kept, the same command resumes")
        return INTERRUPTED
    return 0


def parse(config_cls: type[C], verb: str, argv: Sequence[str]) -> C:
    """The config that a command line asks for; UserError in terms of flags for a bad one."""
    parser = _parser(config_cls, verb)
    known, unknown = parser.parse_known_args(list(argv))
    if unknown:
        raise UserError(_unknown(unknown[0], config_cls))
    try:
        return config_cls.model_validate(vars(known))
    except ValidationError as problem:
        raise UserError(_explain(problem, config_cls)) from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def _parser(config_cls: type[BaseModel], verb: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"emoprobe {verb}",
        description=(config_cls.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for name, field in config_cls.model_fields.items():
        _add(parser, name, field)
    return parser


def _add(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    kind = _plain(field.annotation)
    more: dict[str, Any] = {"help": _help(field)}
    if kind is bool:
        action = argparse.BooleanOptionalAction if field.default is True else "store_true"
        parser.add_argument(_flag(name, field), dest=name, action=action, **more)
        return
    many = get_origin(kind) in (tuple, list, set, frozenset)
    if many:
        more |= {"nargs": "+", "action": _Extend}
    if _is_positional(field):
        if not many:
            more["nargs"] = "?"  # its absence is explained by the config, like that of any other field
        parser.add_argument(name, metavar=_label(name, field), **more)
    else:
        parser.add_argument(_flag(name, field), dest=name, metavar=_metavar(kind), **more)


class _Extend(argparse.Action):
    """Collects repeated, spaced and comma-separated values into one list."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        words = [word for value in values for word in value.split(",") if word]
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, []), *words])


def _verb(run: Callable[..., Any]) -> str:
    module = run.__module__
    if module == "__main__":
        spec = sys.modules["__main__"].__spec__
        module = spec.name if spec else Path(sys.argv[0]).stem
    return module.removesuffix(".__main__").rpartition(".")[2]


def _flag(name: str, field: FieldInfo) -> str:
    own = [mark.name for mark in field.metadata if isinstance(mark, Flag)]
    return "--" + (own[0] if own else name).replace("_", "-")


def _label(name: str, field: FieldInfo) -> str:
    """How a user knows a field: its flag, or the name of the positional argument."""
    return name.upper().replace("_", "-") if _is_positional(field) else _flag(name, field)


def _is_positional(field: FieldInfo) -> bool:
    return any(mark is Positional or isinstance(mark, Positional) for mark in field.metadata)


def _plain(annotation: Any) -> Any:
    """The annotation without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [a for a in get_args(annotation) if a is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def _metavar(kind: Any) -> str:
    if get_origin(kind) in (tuple, list, set, frozenset):
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return "{" + ",".join(str(option) for option in get_args(kind)) + "}"
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "NAME")


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if field.is_required():
        text += " (required)"
    elif isinstance(field.default, bool) or field.default in (None, "", ()) or field.default_factory:
        pass
    else:
        shown = (
            " ".join(map(str, field.default)) if isinstance(field.default, list | tuple) else field.default
        )
        text += f" (default: {shown})"
    return text.strip().replace("%", "%%")


def _unknown(word: str, config_cls: type[BaseModel]) -> str:
    if not word.startswith("-"):
        return f"unexpected argument '{word}'"
    flag = word.partition("=")[0]
    flags = [_flag(name, f) for name, f in config_cls.model_fields.items() if not _is_positional(f)]
    # Without the dashes, which make every flag look like every other.
    close = difflib.get_close_matches(flag.lstrip("-"), [f[2:] for f in flags], n=1)
    return f"unknown option {flag}; " + (f"did you mean --{close[0]}?" if close else "see --help")


def _explain(problem: ValidationError, config_cls: type[BaseModel]) -> str:
    """The first error, in the user's terms."""
    error = problem.errors(include_url=False)[0]
    context, value = error.get("ctx", {}), error["input"]
    name = str(error["loc"][0]) if error["loc"] else None
    label = _label(name, config_cls.model_fields[name]) if name in config_cls.model_fields else None
    if error["type"] in ("value_error", "assertion_error"):
        message = str(context.get("error", error["msg"]))
        return message if label is None or label in message else f"{label}: {message}"
    if error["type"] == "missing":
        return f"{label} is required"
    rule = _RULES.get(error["type"])
    wanted = rule(context) if rule else error["msg"][:1].lower() + error["msg"][1:]
    return f"{label} must be {wanted}, got {_shown(value)}"


_RULES: dict[str, Callable[[dict[str, Any]], str]] = {
    "greater_than_equal": lambda c: f"at least {c['ge']:g}",
    "greater_than": lambda c: f"more than {c['gt']:g}",
    "less_than_equal": lambda c: f"at most {c['le']:g}",
    "less_than": lambda c: f"less than {c['lt']:g}",
    "int_parsing": lambda c: "a whole number",
    "int_from_float": lambda c: "a whole number",
    "int_type": lambda c: "a whole number",
    "float_parsing": lambda c: "a number",
    "float_type": lambda c: "a number",
    "finite_number": lambda c: "a finite number",
    "bool_parsing": lambda c: "true or false",
    "literal_error": lambda c: f"one of {c['expected']}".replace("'", "").replace(" or ", ", "),
    "too_short": lambda c: f"at least {c['min_length']} value{'s' * (c['min_length'] != 1)}",
    "too_long": lambda c: f"at most {c['max_length']} value{'s' * (c['max_length'] != 1)}",
}


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"'{value}'" if isinstance(value, str) and not _is_number(value) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _foreseen(problem: Exception, config_cls: type[BaseModel]) -> EmoprobeError | None:
    """The one-line form of an error that the machine, not the program, is the cause of."""
    if _is_out_of_memory(problem):
        flags = [_flag(f, config_cls.model_fields[f]) for f in _MEMORY_FLAGS if f in config_cls.model_fields]
        advice = f"lower {flags[0]}" if flags else "use a smaller input"
        return RunError(f"out of memory; {advice}; what is done is kept")
    if isinstance(problem, OSError) and problem.filename:
        reason = f"{problem.filename}: {(problem.strerror or type(problem).__name__).lower()}"
        if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR):
            return UserError(reason)
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError("no space left on the disk; what is done is kept, the same command resumes")
    return None


def _is_out_of_memory(problem: Exception) -> bool:
    """Python's, torch's on a GPU (known by name, so that torch need not load) and torch's on the CPU."""
    text = str(problem).lower()
    return (
        isinstance(problem, MemoryError)
        or type(problem).__name__ == "OutOfMemoryError"
        or (isinstance(problem, RuntimeError) and ("out of memory" in text or "can't allocate" in text))
    )


def _say(prog: str, message: str) -> None:
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr, flush=True)
