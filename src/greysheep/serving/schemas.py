"""What comes in and goes out as JSON; the OpenAPI page is made of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

Id = StrictInt | StrictStr
"""An id in the type of the model's log: an integer or a text, never one for the other."""
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Time = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class History(_Strict):
    """The rows of a person who is not known to the model."""

    items: list[Id] = Field(min_length=1)
    """Item ids. Those that the model does not know are left out and counted in the reply."""
    weights: list[Weight] | None = None
    """One for each item, for models that use weights; 1 if not given."""
    times: list[Time] | None = None
    """One for each item. Models with a gate read the latest rows with it."""

    @model_validator(mode="after")
    def _as_long(self) -> History:
        for name in ("weights", "times"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.items):
                raise ValueError(f"{len(values)} {name} for {len(self.items)} items")
        return self


class ListsRequest(_Strict):
    """Whom to make lists for, and of what."""

    users: list[Id] = []
    """Known users."""
    histories: list[History] = []
    """People who are not known, by their rows."""
    k: int = Field(20, ge=1, strict=True)
    """Length of the lists; shorter where fewer items are left."""
    candidates: list[Id] | None = None
    """The only items to choose from; items without train rows come only when named here."""
    exclude_items: list[Id] | None = None
    """Items that nobody gets."""
    exclude_seen: StrictBool = True
    """Leave out what a person has already."""
    on_unknown: Literal["raise", "skip", "popular"] = "raise"
    """Users without rows: refuse the call (404), give an empty list, or the most popular items."""

    @model_validator(mode="after")
    def _somebody(self) -> ListsRequest:
        if not self.users and not self.histories:
            raise ValueError("neither users nor histories: nobody to make lists for")
        return self


class ListedItem(BaseModel):
    """One place in a list."""

    item_id: Id
    score: float
    rank: int
    title: str | None = None


class PersonsList(BaseModel):
    """The list of one person."""

    user_id: Id | None = Field(description="None for a history.")
    known: bool = Field(description="Whether the list is made of her rows.")
    group: str | None = Field(description="low (niche), med-low, medium, med-high or high; None if unknown.")
    unknown_items: int = Field(0, description="Items of the history that the model does not know.")
    items: list[ListedItem]


class _Versioned(BaseModel):
    version: str = Field(description="SHA-256 of the model's manifest: all of the reply is of this version.")
    model: str = Field(description="The model's label.")


class UserList(_Versioned, PersonsList):
    """The list of a known user."""


class Lists(_Versioned):
    """Lists in the order of the request: users first, then histories."""

    lists: list[PersonsList]


class Group(_Versioned):
    """A user's group."""

    user_id: Id
    group: str
    score: float = Field(description="Mainstream score: how much the others' rows look like hers.")


class SimilarItem(BaseModel):
    """One similar item."""

    item_id: Id
    score: float
    rank: int
    title: str | None = None


class SimilarItems(_Versioned):
    """The items most like one."""

    item_id: Id
    title: str | None = None
    similar: list[SimilarItem]


class Titled(BaseModel):
    """An item."""

    item_id: Id
    title: str | None = None


class FoundItems(BaseModel):
    """Items that were searched for."""

    version: str
    items: list[Titled]


class ProfileRequest(_Strict):
    """A person who is not known, by her rows."""

    history: History
    k: int = Field(10, ge=1, strict=True)
    """Length of the lists."""


class Reason(Titled):
    """A row that speaks for an item."""

    contribution: float


class ExplainedItem(ListedItem):
    """One place in a list, and her rows that speak most for it."""

    because: list[Reason] = []


class ShownList(BaseModel):
    """Her list from one model; in place of a baseline's, why there is none."""

    model: str
    version: str
    items: list[ExplainedItem]
    error: str | None


class Voice(BaseModel):
    """An expert or a member, and how loudly it speaks for her."""

    voice: str
    weight: float


class Profile(_Versioned):
    """All that the page shows of one person."""

    user_id: Id | None
    group: str | None
    unknown_items: int
    n_rows: int
    rows: list[Titled] = Field(description="Her items, the newest first where times are known.")
    exact: bool = Field(description="Contributions sum to the score; else each is what it loses without.")
    voices: list[Voice]
    lists: list[ShownList] = Field(description="This model's, then the baselines'.")


class Health(BaseModel):
    """Whether the service runs, and what it serves."""

    status: str
    version: str
    model: str


class Error(BaseModel):
    """What went wrong, in one line."""

    error: str
