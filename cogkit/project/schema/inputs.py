"""The parameters of a run, predict or train function, as inputs with their constraints.

What Cog refuses is refused here (``pkg/schema/python/inputs.go``), with the place; what Cog leaves out of the schema
without a word is left out too, with a warning.  A default is checked against its type and constraints, as Cog's
validation of the finished document does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import cast

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.config_model import ConfigWarning
from cogkit.project.schema.annotations import (
    PRIMITIVES,
    STREAMS,
    Alternatives,
    Annotation,
    Generic,
    Metadata,
    Named,
    Words,
    parse,
    unsupported,
)
from cogkit.project.schema.literals import (
    UNKNOWN,
    Scope,
    SetValue,
    Unknown,
    Unresolvable,
    Value,
    enum_kind,
    evaluate,
    to_json,
)
from cogkit.project.schema.names import FunctionNode, dotted_name, start_of, statements, stored_names
from cogkit.project.schema.outputs import Kind, class_kind
from cogkit.project.schema.source import Class, Found, Module
from cogkit.project.schema.types import ANY, Array, OneOf, Primitive, Type

NESTED = "nested generics like List[Optional[X]] are not supported"
_KEYWORDS = (
    "default",
    "default_factory",
    "description",
    "ge",
    "le",
    "min_length",
    "max_length",
    "regex",
    "choices",
    "deprecated",
    "accept",
)
_CONSTRAINTS = ("ge", "le", "min_length", "max_length", "regex", "choices")


class Missing:
    """No default; None is one."""


MISSING = Missing()


@dataclass(frozen=True, slots=True)
class Input:
    """One parameter.

    Attributes:
        default: The default as JSON, or `MISSING`.
        where: ``file:line:column`` of the parameter.
    """

    name: str
    type: Type
    default: object = MISSING
    description: str | None = None
    ge: float | None = None
    le: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    regex: str | None = None
    choices: tuple[object, ...] = ()
    deprecated: bool = False
    accept: str | None = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """An expression that has a value only when the code runs.

    Attributes:
        parameter: Whose it is.
        keyword: Which keyword of its ``Input(...)``, or `WHOLE`.
        text: The expression.
        where: ``file:line:column``.
        refusal: What to say if nobody evaluates it; None if it can be left out of the schema.
    """

    parameter: str
    keyword: str
    text: str
    where: str
    refusal: ConfigError | None


WHOLE = "*"
"""In the place of a keyword: all of a parameter's default."""

Answers = Mapping[str, Mapping[str, object]]
"""For each parameter, what the keywords of its ``Input(...)`` are as JSON; a plain default is ``default`` alone."""


@dataclass(slots=True)
class Inputs:
    """Reads the parameters of one function, collecting ``warnings`` and ``questions``.

    Attributes:
        owner: The class that the function stands in.
        answers: What is known of expressions that are not in the source; None to refuse those.
    """

    module: Module
    function: FunctionNode
    is_method: bool
    key: str
    owner: Class | None = None
    answers: Answers | None = None
    warnings: list[ConfigWarning] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def read(self) -> tuple[Input, ...]:
        """All inputs, in order.

        Raises:
            ConfigError: A parameter that cannot be an input.
        """
        return tuple(self._parameter(arg, default) for arg, default in self._parameters())

    def _parameters(self) -> Iterator[tuple[ast.arg, ast.expr | None]]:
        arguments = self.function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        required = len(positional) - len(arguments.defaults)
        defaults: list[ast.expr | None] = [*(None for _ in range(required)), *arguments.defaults]
        pairs = list(zip(positional, defaults, strict=True))
        yield from pairs[1:] if self.is_method else pairs
        for variadic, stars in ((arguments.vararg, "*"), (arguments.kwarg, "**")):
            if variadic is not None and variadic.annotation is not None:
                raise self.module.error(
                    f"parameter '{stars}{variadic.arg}' on {self.function.name} cannot be an input",
                    variadic,
                    "Name each input as a parameter of its own.",
                )
        yield from zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)

    def _parameter(self, arg: ast.arg, default: ast.expr | None) -> Input:
        if arg.annotation is None:
            raise self.module.error(
                f"parameter '{arg.arg}' on {self.function.name} has no type annotation",
                arg,
                f"Say what it is, such as {arg.arg}: str.",
            )
        of_type = InputTypes(self.module).resolve(arg.annotation)
        where = self.module.where(arg)
        if default is None:
            return Input(arg.arg, of_type, where=where)
        scope = Scope(self.module, owner=self.owner, before=start_of(self.function))
        found = self._input_call(default, scope)
        if found is None:
            result = self._plain(arg.arg, of_type, where, default, scope)
        else:
            call, of_call = found
            result = self._from_call(arg.arg, of_type, where, call, of_call)
        self._check_default(result, default)
        return result

    def _plain(self, name: str, of_type: Type, where: str, node: ast.expr, scope: Scope) -> Input:
        """The input with a default that is no ``Input(...)`` as far as the source tells."""
        try:
            return Input(name, of_type, default=to_json(evaluate(node, scope)), where=where)
        except Unresolvable:
            pass
        answer = self._ask(name, WHOLE, node, scope)
        if answer is None:
            return Input(name, of_type, where=where)
        # What comes from a call may be an ``Input(...)`` of any keywords.
        keywords = {key: answer[key] for key in _KEYWORDS if key in answer}
        if keywords.get("default") is None and not of_type.nullable:
            keywords.pop("default", None)  # the SDK has None for no default
        written = ast.Call(ast.Name("Input", ast.Load()), [], [])
        for key, value in keywords.items():
            written.keywords.append(ast.keyword(key, as_node(value)))
        for part in ast.walk(written):
            if "lineno" in part._attributes:
                ast.copy_location(part, node)
        return self._from_call(name, of_type, where, written, scope)

    def _ask(self, name: str, keyword: str, node: ast.expr, scope: Scope) -> Mapping[str, object] | None:
        """The answers for a parameter; None if there are none yet.

        Raises:
            ConfigError: Nobody evaluates it, and the schema cannot do without.
        """
        known = self.answers.get(name) if self.answers is not None else None
        if known is not None and (keyword == WHOLE or keyword in known):
            return known
        refusal = self._refusal(name, keyword, node, scope)
        text, where = scope.module.text(node), scope.module.where(node)
        self.questions.append(Question(name, keyword, text, where, refusal))
        return None

    def _refusal(self, name: str, keyword: str, node: ast.expr, scope: Scope) -> ConfigError | None:
        if keyword == "choices":
            return scope.module.error(
                f"parameter '{name}': choices expression cannot be statically resolved",
                node,
                'Write a literal list, such as choices=["a", "b"], or a constant of a file of the project.',
            )
        if keyword in (WHOLE, "default"):
            return scope.module.error(
                f"parameter '{name}': default `{scope.module.text(node)}` cannot be statically resolved",
                node,
                "Write a literal (string, number, bool, None, list) or Input(...), or a constant of a file of the "
                "project.",
            )
        return None

    # -- Input(...) ------------------------------------------------------------------------------------------------

    def _input_call(self, node: ast.expr, scope: Scope, depth: int = 20) -> tuple[ast.Call, Scope] | None:
        """The ``Input(...)`` that a default is: written there, the value of a name, or returned by a function."""
        if depth == 0:
            return None
        if isinstance(node, ast.Call):
            if is_input_call(node, scope.module):
                return node, scope
            return self._returned(node, scope, depth)
        if isinstance(node, ast.Name | ast.Attribute):
            dotted = dotted_name(node)
            found = scope.find(dotted) if dotted is not None else None
            if found is not None and isinstance(found.node, ast.Call | ast.Name | ast.Attribute):
                return self._input_call(found.node, scope.at(found), depth - 1)
        return None

    def _returned(self, node: ast.Call, scope: Scope, depth: int) -> tuple[ast.Call, Scope] | None:
        """The ``Input(...)`` that a call of a function of the project returns."""
        dotted = dotted_name(node.func)
        found = scope.find(dotted) if dotted is not None else None
        if found is None or not isinstance(found.node, ast.FunctionDef):
            return None
        function = found.node
        if not all(_is_harmless(decorator) for decorator in function.decorator_list):
            return None
        returns = [statement for statement, _ in statements(function.body) if isinstance(statement, ast.Return)]
        if len(returns) != 1 or returns[0] is not function.body[-1] or returns[0].value is None:
            return None
        # It runs here and now: of its own module, what is bound so far counts.
        before = scope.before if found.module is scope.module else None
        inner = Scope(found.module, _bind(node, scope, found), before=before, depth=scope.depth, budget=scope.budget)
        return self._input_call(returns[0].value, inner, depth - 1)

    def _from_call(self, name: str, of_type: Type, where: str, call: ast.Call, scope: Scope) -> Input:
        options = _Options(self, name, scope, self._keywords(name, call, scope))
        default: object = MISSING
        if "default" in options.nodes:
            default = options.json("default", MISSING)
        result = Input(
            name=name,
            type=of_type,
            default=default,
            description=options.text("description"),
            ge=options.number("ge"),
            le=options.number("le"),
            min_length=options.length("min_length"),
            max_length=options.length("max_length"),
            regex=self._regex(options),
            choices=self._choices(name, options),
            deprecated=options.flag("deprecated"),
            accept=options.text("accept"),
            where=where,
        )
        if result.accept is not None and of_type.primitive not in ("Path", "File"):
            raise scope.module.error(
                f"accept is only valid on Path or File inputs (parameter '{name}')",
                options.nodes["accept"],
                "Make the input a Path, or remove accept.",
            )
        constrained = [key for key in _CONSTRAINTS if getattr(result, key) not in (None, ())]
        if isinstance(of_type.shape, OneOf) and constrained:
            raise unsupported(
                scope.module,
                "constraints and choices are not supported on union inputs",
                options.nodes[constrained[0]],
                f"Remove {constrained[0]}, or give '{name}' one type.",
            )
        return result

    def _keywords(self, name: str, call: ast.Call, scope: Scope) -> dict[str, ast.expr]:
        nodes: dict[str, ast.expr] = {}
        if call.args and not isinstance(call.args[0], ast.Starred):
            nodes["default"] = call.args[0]
        for keyword in call.keywords:
            if keyword.arg is None:
                nodes |= self._spread(name, keyword.value, scope)
            elif keyword.arg in _KEYWORDS:
                nodes[keyword.arg] = keyword.value
            else:
                message = f"parameter '{name}': {keyword.arg} in Input() means nothing to the schema"
                self.warn(message, keyword.value, scope)
        factory = nodes.pop("default_factory", None)
        if factory is not None:
            raise scope.module.error(
                f"parameter '{name}': default_factory is not supported in static schema generation",
                factory,
                "Use a literal default value instead.",
            )
        return nodes

    def _spread(self, name: str, node: ast.expr, scope: Scope) -> dict[str, ast.expr]:
        """The keywords that ``**node`` stands for."""
        try:
            value = evaluate(node, scope)
        except Unresolvable:
            value = None
        if isinstance(value, dict):
            nodes = {str(key): as_node(one) for key, one in value.items() if key in _KEYWORDS}
            for one in nodes.values():
                for part in ast.walk(one):
                    if "lineno" in part._attributes:
                        ast.copy_location(part, node)
            return nodes
        answer = self._ask(name, WHOLE, node, scope)
        known = {key: as_node(answer[key]) for key in _KEYWORDS if key in answer} if answer is not None else {}
        for one in known.values():
            for part in ast.walk(one):
                if "lineno" in part._attributes:
                    ast.copy_location(part, node)
        return known

    def _regex(self, options: _Options) -> str | None:
        regex = options.text("regex")
        if regex is not None:
            try:
                re.compile(regex)
            except (re.error, RecursionError, OverflowError) as error:
                raise options.scope.module.error(
                    f"parameter '{options.name}': invalid regex: {error}",
                    options.nodes["regex"],
                    "Write a regular expression as Python's re module has them.",
                ) from error
        return regex

    def _choices(self, name: str, options: _Options) -> tuple[object, ...]:
        node = options.nodes.get("choices")
        if node is None:
            return ()
        try:
            value = evaluate(node, options.scope)
            if isinstance(value, list) and not isinstance(value, SetValue):
                return tuple(to_json(item) for item in value)
            if value is None:
                return ()
        except Unresolvable:
            pass
        answer = self._ask(name, "choices", node, options.scope)
        choices = answer["choices"] if answer is not None else None
        return tuple(choices) if isinstance(choices, list) else ()

    # -- the default -----------------------------------------------------------------------------------------------

    def _check_default(self, one: Input, node: ast.expr) -> None:
        """Refuse a default that its own schema forbids."""
        if one.default is MISSING or one.default is None:
            return
        fault = None
        if one.choices:
            if not any(_same(one.default, choice) for choice in one.choices):
                fault = f"it is not one of the choices {list(one.choices)}"
            else:
                fault = _type_fault(Type(Primitive(one.type.primitive)), one.default)
        else:
            fault = _type_fault(one.type, one.default)
        fault = fault or _constraint_fault(one)
        if fault is None:
            return
        place = node
        if isinstance(node, ast.Call):
            place = next((keyword.value for keyword in node.keywords if keyword.arg == "default"), node)
        raise self.module.error(
            f"parameter '{one.name}': invalid default {one.default!r}: {fault}",
            place,
            "Change the default or the type.",
        )

    def warn(self, message: str, node: ast.AST, scope: Scope) -> None:
        self.warnings.append(ConfigWarning(message, self.key, scope.module.where(node)))


@dataclass(frozen=True, slots=True)
class _Options:
    """The keywords of one ``Input(...)``, evaluated when asked for."""

    inputs: Inputs
    name: str
    scope: Scope
    nodes: dict[str, ast.expr]

    def json(self, key: str, unknown: object = None) -> object:
        """The value; ``unknown`` if it is not in the source and nobody has evaluated it."""
        node = self.nodes.get(key)
        if node is None:
            return None
        try:
            return to_json(evaluate(node, self.scope))
        except Unresolvable:
            answer = self.inputs._ask(self.name, key, node, self.scope)
            return answer[key] if answer is not None else unknown

    def _left_out(self, key: str, node: ast.expr, why: str) -> None:
        text = self.scope.module.text(node)
        shown = text if len(text) <= 60 else text[:59] + "…"
        message = f"parameter '{self.name}': {key} `{shown}` {why} and is left out of the schema"
        self.inputs.warn(message, node, self.scope)

    def text(self, key: str) -> str | None:
        value = self.json(key)
        if value is None or isinstance(value, str):
            return value
        self._left_out(key, self.nodes[key], "is no string")
        return None

    def number(self, key: str) -> float | None:
        value = self.json(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                self._left_out(key, self.nodes[key], "is too large")
                return None
        self._left_out(key, self.nodes[key], "is no number")
        return None

    def length(self, key: str) -> int | None:
        value = self.number(key)
        if value is not None and value < 0:
            raise self.scope.module.error(
                f"parameter '{self.name}': {key} must not be negative", self.nodes[key], f"Remove {key}, or raise it."
            )
        return None if value is None else int(value)

    def flag(self, key: str) -> bool:
        value = self.json(key)
        if value is not None and not isinstance(value, bool):
            self._left_out(key, self.nodes[key], "is neither True nor False")
        return value is True


def is_input_call(node: ast.Call, module: Module) -> bool:
    """Whether this is a call of ``Input``, under any name it was imported by."""
    name = dotted_name(node.func)
    return name is not None and (name == "Input" or Words(module).exact(name, "cog") == "Input")


def as_node(value: object) -> ast.expr:
    """A value as the expression that is written for it; what is not known as one that has no value."""
    if isinstance(value, list | tuple):
        return ast.List([as_node(one) for one in value], ast.Load())
    if isinstance(value, dict):
        return ast.Dict([as_node(key) for key in value], [as_node(one) for one in value.values()])
    if isinstance(value, Unknown):
        return ast.Await(ast.Constant(None))
    if isinstance(value, str | bool | int | float | None):
        return ast.Constant(value)
    raise Unresolvable


def _is_harmless(decorator: ast.expr) -> bool:
    name = dotted_name(decorator.func if isinstance(decorator, ast.Call) else decorator) or ""
    return name.rpartition(".")[2] in ("staticmethod", "classmethod", "cache", "lru_cache")


def _bind(call: ast.Call, scope: Scope, found: Found) -> dict[str, Value]:
    """What the names of a function are in a call of it; those that are not known are `UNKNOWN`."""
    function = found.node
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    own = Scope(found.module, owner=found.owner, before=start_of(function))
    bound: dict[str, Value] = dict.fromkeys(stored_names(function.body), UNKNOWN)
    for arg in (*positional, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if arg is not None:
            bound[arg.arg] = UNKNOWN
    written = [
        *zip(reversed(positional), reversed(arguments.defaults), strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for arg, default in written:
        if default is not None:
            bound[arg.arg] = _known(default, own)
    names = [arg.arg for arg in positional]
    if found.owner is not None and "staticmethod" not in map(dotted_name, function.decorator_list):
        names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    if not any(isinstance(arg, ast.Starred) for arg in call.args):
        for name, node in zip(names, call.args, strict=False):
            bound[name] = _known(node, scope)
    else:
        bound |= dict.fromkeys(names, UNKNOWN)
    passed: dict[str, Value] = {}
    for keyword in call.keywords:
        if keyword.arg is not None:
            (bound if keyword.arg in bound else passed)[keyword.arg] = _known(keyword.value, scope)
        else:
            value = _known(keyword.value, scope)
            if not isinstance(value, dict):
                return dict.fromkeys(bound, UNKNOWN)
            for key, one in value.items():
                (bound if key in bound else passed)[str(key)] = one
    if arguments.kwarg is not None:
        bound[arguments.kwarg.arg] = cast(Value, passed)
    return bound


def _known(node: ast.expr, scope: Scope) -> Value:
    try:
        return evaluate(node, scope)
    except Unresolvable:
        return UNKNOWN


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _type_fault(of_type: Type, value: object) -> str | None:
    shape = of_type.shape
    if isinstance(shape, OneOf):
        faults = [_type_fault(variant, value) for variant in shape.variants]
        return None if None in faults else "it is none of the types"
    if isinstance(shape, Array):
        if not isinstance(value, list):
            return "it must be a list"
        return next((fault for fault in (_type_fault(shape.items, item) for item in value) if fault), None)
    name = shape.name if isinstance(shape, Primitive) else "Any"
    if name == "bool":
        fits = isinstance(value, bool)
    elif name == "int":
        fits = _is_number(value) and not (isinstance(value, float) and not value.is_integer())
    elif name == "float":
        fits = _is_number(value)
    elif name == "Any":
        fits = isinstance(value, dict)
    else:
        fits = isinstance(value, str)
    return None if fits else {"Any": "it must be an object"}.get(name, f"it must be a value of type {name}")


def _constraint_fault(one: Input) -> str | None:
    value = one.default
    if isinstance(value, int | float) and not isinstance(value, bool):
        if one.ge is not None and value < one.ge:
            return f"it is less than the minimum {one.ge:g}"
        if one.le is not None and value > one.le:
            return f"it is more than the maximum {one.le:g}"
    if isinstance(value, str):
        if one.min_length is not None and len(value) < one.min_length:
            return f"it must have at least {one.min_length} characters"
        if one.max_length is not None and len(value) > one.max_length:
            return f"it must have at most {one.max_length} characters"
        if one.regex is not None and re.search(one.regex, value) is None:
            return f"it does not match the regex {one.regex}"
    return None


@dataclass(frozen=True, slots=True)
class InputTypes:
    """Resolves the annotations of parameters: JSON types, files, secrets, lists and unions of them.

    Attributes:
        depth: How many aliases may still lead on.
    """

    module: Module
    depth: int = 20

    @property
    def words(self) -> Words:
        return Words(self.module)

    def resolve(self, node: ast.expr) -> Type:
        """The type of a parameter.

        Raises:
            ConfigError: Cog has no such input.
        """
        return self._type(parse(node, self.module))

    def _type(self, annotation: Annotation) -> Type:
        opaque = self.words.opaque(annotation)
        if opaque is not None:
            return self._opaque(opaque)
        if isinstance(annotation, Named):
            return self._named(annotation)
        if isinstance(annotation, Generic):
            if self.words.is_annotated(annotation):
                return self._type(annotation.args[0])
            return self._generic(annotation)
        if isinstance(annotation, Alternatives):
            return self._union(annotation.args, annotation.node)
        raise unsupported(self.module, self.module.text(annotation.node), annotation.node)

    def _opaque(self, inner: Annotation) -> Type:
        nested = self.words.opaque(inner)
        if nested is not None:
            return self._opaque(nested)
        optional = self.words.opaque_optional(inner)
        if optional is not None:
            return self._opaque(optional).or_none()
        if not isinstance(inner, Alternatives | Metadata) and self.words.container(inner.name) == "list":
            return Type(Array(ANY))
        return ANY

    def _named(self, annotation: Named) -> Type:
        name, node = annotation.name, annotation.node
        cls = self.words.find_class(name)
        if cls is not None:
            kind = class_kind(cls)
            if kind is Kind.TYPED_DICT:
                return ANY
            if enum_kind(cls) is not None:
                raise unsupported(
                    self.module,
                    f"{name} is an enumeration",
                    node,
                    f"Take a str (or int) with Input(choices=[one.value for one in {name}]), and make {name}(value) "
                    "of it.",
                )
            if kind is not None or self.words.word(name) not in PRIMITIVES:
                raise unsupported(
                    self.module,
                    f"{name} is a class, which an input cannot be",
                    node,
                    f"Use a dict or a TypedDict, or write Annotated[{name}, Opaque] to take any JSON object.",
                )
        word = self.words.word(name)
        if word in ("dict", "Dict"):
            return ANY
        if word in PRIMITIVES:
            return Type(Primitive(word))
        if word in ("list", "List"):
            raise unsupported(self.module, "a list needs the type of its items", node, "Write list[str], for instance.")
        if name == "None":
            raise unsupported(self.module, "None cannot be the type of an input", node)
        alias = self.words.alias(name)
        if alias is not None and isinstance(alias.node, ast.expr) and self.depth:
            return InputTypes(alias.module, self.depth - 1).resolve(alias.node)
        raise self.words.unresolved(name, node)

    def _generic(self, annotation: Generic) -> Type:
        args, node = annotation.args, annotation.node
        word = self.words.word(annotation.name)
        if word in ("dict", "Dict"):
            return ANY
        if word == "Optional":
            if len(args) != 1:
                raise unsupported(self.module, f"Optional expects exactly 1 type argument, got {len(args)}", node)
            return self._type(args[0]).or_none()
        if word == "Union":
            return self._union(args, node)
        if word in ("list", "List"):
            if len(args) != 1:
                raise unsupported(self.module, f"List expects exactly 1 type argument, got {len(args)}", node)
            items = self._type(args[0])
            if items.nullable or isinstance(items.shape, Array | OneOf):
                raise unsupported(self.module, NESTED, node, "Take a dict, or a JSON string, and read it yourself.")
            return Type(Array(items))
        hint = "Write Input(choices=[...]) with a str or int instead." if word == "Literal" else None
        if word in STREAMS:
            hint = "Only an output can be an iterator; take a list."
        raise unsupported(self.module, f"{annotation.name}[...] is not a supported input type", node, hint)

    def _union(self, args: tuple[Annotation, ...], node: ast.expr) -> Type:
        variants: list[Type] = []
        nullable = False
        for arg in args:
            if isinstance(arg, Named) and arg.name == "None":
                nullable = True
                continue
            variant = self._type(arg)
            is_union = isinstance(arg, Alternatives) or (isinstance(arg, Generic) and arg.name == "Union")
            if is_union or isinstance(variant.shape, OneOf):
                raise unsupported(self.module, "nested union inputs are not supported", node, "Write one flat union.")
            variants.append(variant)
        if not variants:
            raise unsupported(self.module, "union inputs must include at least one non-None type", node)
        if len(variants) > 1:
            for variant in variants:
                self._check_variant(variant, node)
            only = Type(OneOf(tuple(variants)))
        else:
            only = variants[0]
        return only.or_none() if nullable else only

    def _check_variant(self, variant: Type, node: ast.expr) -> None:
        error: ConfigError | None = None
        if variant.nullable:
            error = unsupported(self.module, "nested nullable variants are not supported in union inputs", node)
        elif variant.primitive in ("Path", "File", "Secret"):
            error = unsupported(
                self.module,
                f"{variant.primitive} is not supported in union inputs",
                node,
                "Make two inputs of it, both optional.",
            )
        if error is not None:
            raise error
