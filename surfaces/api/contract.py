"""The bodies of the call for a page of surfaces, on top of the contract of one surface."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from surfaces.api.problems import Problem
from surfaces.contracts import RecommendRequest, RecommendResponse

MOST_REQUESTS = 20


class SurfaceRequest(RecommendRequest):
    """A question to the surface it names."""

    surface: Annotated[str, Field(min_length=1, max_length=64)]


class PageRequest(BaseModel):
    """Questions to the surfaces of a page."""

    model_config = ConfigDict(extra="forbid")

    requests: Annotated[list[SurfaceRequest], Field(min_length=1, max_length=MOST_REQUESTS)]


class PageResponse(BaseModel):
    """One answer for each request, in their order: the surface's answer or its problem."""

    responses: list[RecommendResponse | Problem]
