"""The codec and pydantic's models: aliases, configurations, and what would not come back equal."""

import decimal
import functools
import math
import uuid
from typing import Annotated, Any, Generic, Literal

import pydantic
import pytest

from jobqueue.errors import ConfigurationError, InvalidArguments
from jobqueue.serialization.codec import (
    Codec,
)
from tests.serialization.codec_kit import NOW, T, codec, refusal, round_trip

# Pydantic's aliases


def aliased() -> list[tuple[Any, Any]]:
    """Models and values whose names differ by direction."""
    from pydantic import (
        AliasChoices,
        AliasGenerator,
        AliasPath,
        BaseModel,
        ConfigDict,
        Field,
    )
    from pydantic.alias_generators import to_camel

    class Read(BaseModel):
        user_id: int = Field(default=0, validation_alias="userId")

    class Written(BaseModel):
        user_id: int = Field(serialization_alias="userId")

    class Both(BaseModel):
        model_config = ConfigDict(
            alias_generator=AliasGenerator(validation_alias=str.upper, serialization_alias=to_camel)
        )
        user_id: int

    class Path(BaseModel):
        first: int = Field(validation_alias=AliasPath("all", 0))

    class Choices(BaseModel):
        value: int = Field(default=0, validation_alias=AliasChoices("V", AliasPath("all", 0)))

    class Outer(BaseModel):
        model_config = ConfigDict(extra="forbid")
        inner: list[Read]
        by_name: dict[str, Choices] = Field(alias="byName")

    class Cat(BaseModel):
        kind: Literal["cat"] = Field("cat", validation_alias="Kind")

    class Dog(BaseModel):
        kind: Literal["dog"] = Field("dog", validation_alias="Kind")

    class Owner(BaseModel):
        pet: Annotated[Cat | Dog, Field(discriminator="kind")]

    class OnlyNames(BaseModel):
        model_config = ConfigDict(validate_by_alias=False, validate_by_name=True)
        user_id: int = Field(alias="userId")

    class Same(BaseModel):
        user_id: int = Field(alias="userId")

    class Either(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        user_id: int = Field(alias="userId")

    return [
        (Read, Read(userId=1)),
        (Written, Written(user_id=1)),
        (Both, Both(USER_ID=1)),
        (Path, Path(all=[1])),
        (Choices, Choices(V=1)),
        (Outer, Outer(inner=[Read(userId=1)], byName={"a": Choices(V=2)})),
        (Owner, Owner(pet=Dog(Kind="dog"))),
        (OnlyNames, OnlyNames(user_id=1)),
        (Same, Same(userId=1)),
        (Either, Either(user_id=1)),
        (list[Read], [Read(userId=1)]),
        (Read | None, Read(userId=1)),
    ]


@pytest.mark.parametrize(("kind", "value"), aliased(), ids=lambda item: str(item)[:40])
def test_a_model_comes_back_equal_whatever_its_aliases(kind: Any, value: Any) -> None:
    def echo(x): ...

    echo.__annotations__ = {"x": kind, "return": kind}
    codec = Codec(echo, "echo")
    assert codec.decode(codec.encode((value,), {})) == ((value,), {})
    assert codec.decode_result(codec.encode_result(value)) == value


def configured() -> list[tuple[Any, Any]]:
    """Models whose configuration or fields make reading back more than reading what is there."""
    from pydantic import (
        AwareDatetime,
        BaseModel,
        ConfigDict,
        Field,
        PrivateAttr,
        RootModel,
        computed_field,
    )

    class Strict(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
        at: AwareDatetime
        price: decimal.Decimal
        tags: tuple[str, ...] = ()
        ids: frozenset[uuid.UUID] = frozenset()

    class Computed(BaseModel):
        model_config = ConfigDict(extra="forbid")
        a: int

        @computed_field
        @property
        def double(self) -> int:
            return 2 * self.a

    class Private(BaseModel):
        a: int
        _b: int = PrivateAttr(default=1)

    class Excluded(BaseModel):
        a: int
        b: int = Field(default=0, exclude=True)

    class Box(BaseModel, Generic[T]):
        item: T

    class Ids(RootModel[list[int]]): ...

    class Extra(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

    return [
        (
            Strict,
            Strict(
                at=NOW,
                price=decimal.Decimal("1.10"),
                tags=("a",),
                ids=frozenset({uuid.UUID(int=1)}),
            ),
        ),
        (Computed, Computed(a=1)),
        (Private, Private(a=1)),
        (Excluded, Excluded(a=1)),
        (Box[int], Box[int](item=1)),
        (Box[Strict], Box[Strict](item=Strict(at=NOW, price=decimal.Decimal(1)))),
        (Ids, Ids([1, 2])),
        (Extra, Extra(a=1, b="x", c=[1.5, {"d": None}])),
        (dict[str, Computed], {"a": Computed(a=1)}),
        (Ids | None, Ids([])),
    ]


@pytest.mark.parametrize(("kind", "value"), configured(), ids=lambda item: str(item)[:40])
def test_a_model_comes_back_equal_and_of_its_type_however_it_is_configured(
    kind: Any, value: Any
) -> None:
    back = round_trip(kind, value)
    assert (type(back), back) == (type(value), value)
    if isinstance(value, pydantic.BaseModel):
        assert back.model_extra == value.model_extra
    made = codec(Any, kind)
    assert made.decode_result(made.encode_result(value)) == value


def lossy() -> list[tuple[Any, Any, str]]:
    """Models and values that cannot come back equal, and what is said of them."""
    from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

    class Secret(BaseModel):
        token: SecretStr

    class Excluded(BaseModel):
        a: int
        b: int = Field(default=0, exclude=True)

    class Private(BaseModel):
        a: int
        _b: int = PrivateAttr(default=1)

    class Number(BaseModel):
        x: float

    class Extra(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

    changed = Private(a=1)
    changed._b = 2
    return [
        (Secret, Secret(token="hush"), "would come back as"),
        (list[Secret], [Secret(token="hush")], "would come back as"),
        (Excluded, Excluded(a=1, b=5), "would come back as"),
        (Private, changed, "would come back as"),
        (Number, Number(x=math.nan), "NaN"),
        (Number, Number(x=-math.inf), "Infinity"),
        (Extra, Extra(a=1, b=NOW), "would come back as"),
    ]


@pytest.mark.parametrize(("kind", "value", "says"), lossy(), ids=lambda item: str(item)[:40])
def test_a_model_that_would_not_come_back_equal_is_refused(
    kind: Any, value: Any, says: str
) -> None:
    made = codec(kind, kind)
    for error in (
        refusal(made.encode, (value,), {}),
        refusal(made.encode, (), {"x": value}),
        refusal(made.encode_result, value),
    ):
        assert says in str(error)
        assert "hush" not in str(error)


def test_a_model_is_kept_under_its_names_and_read_by_its_aliases_too() -> None:
    from pydantic import BaseModel, Field

    class Read(BaseModel):
        user_id: int = Field(alias="userId")

    def one(x): ...

    one.__annotations__ = {"x": Read}
    codec = Codec(one, "one")
    assert codec.encode((Read(userId=1),), {}) == '{"args":[{"user_id":1}],"kwargs":{}}'
    for key in ("userId", "user_id"):
        text = codec.from_json([{key: 1}], {})
        assert codec.decode(text) == ((Read(userId=1),), {})


def test_a_model_that_an_older_pydantic_cannot_read_by_name_is_kept_under_its_aliases() -> None:
    from pydantic import BaseModel, Field

    class Same(BaseModel):
        user_id: int = Field(alias="userId")

        @classmethod
        def model_validate_json(cls, text):
            return super().model_validate_json(text)

    made = codec(Same)
    assert made.encode((Same(userId=1),), {}) == '{"args":[{"userId":1}],"kwargs":{}}'
    assert made.decode(made.encode((Same(userId=1),), {})) == ((Same(userId=1),), {})


def test_a_name_that_is_another_fields_alias_is_refused_at_the_call() -> None:
    from pydantic import BaseModel, Field

    class Swapped(BaseModel):
        a: int = Field(validation_alias="b")
        b: int = Field(validation_alias="a")

    error = refusal(codec(Swapped).encode, (Swapped(b=1, a=2),), {})
    assert "would come back as" in str(error)


def test_a_function_that_never_returns_is_taken() -> None:
    from typing import Never, NoReturn

    def give_up(x: int) -> NoReturn:
        raise ValueError

    def never(x: int) -> Never:
        raise ValueError

    for function in (give_up, never):
        codec = Codec(function, "give_up")
        assert codec.decode(codec.encode((1,), {})) == ((1,), {})
        assert codec.decode_result("null") is None


def test_arguments_that_a_decorator_gives_itself_say_what_it_must_set() -> None:

    def store(session: str, x: int) -> str: ...

    @functools.wraps(store)
    def wrapper(*args): ...

    with pytest.raises(InvalidArguments, match="__signature__"):
        Codec(wrapper, "wrapper").encode((7,), {})
    with pytest.raises(InvalidArguments) as caught:
        Codec(store, "store").encode((7,), {})
    assert "__signature__" not in str(caught.value)
