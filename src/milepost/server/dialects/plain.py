"""What has no dialect: the models that are served, tokens of a text, and whether the server is well."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter
from openai.types import Model
from pydantic import BaseModel, Field

from milepost.engines.engine import Engine
from milepost.server.dialects.chat import ChatMessage, Tool
from milepost.server.dialects.fields import Body
from milepost.server.documented import FAULTS
from milepost.server.exchange import Exchange, HasExchange

__all__ = ["router"]

router = APIRouter(responses=FAULTS)


class ModelList(BaseModel):
    """The models that are served."""

    object: str = "list"
    data: list[Model]


class TokenizeBody(Body):
    """A text, or a chat, whose tokens are asked for."""

    model: str | None = None
    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    tools: list[Tool] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class Tokens(BaseModel):
    """A prompt's tokens."""

    count: int
    max_model_len: int | None
    tokens: list[int]


class DetokenizeBody(Body):
    """Tokens whose text is asked for."""

    model: str | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class Text(BaseModel):
    """What tokens say."""

    prompt: str


@router.get("/v1/models", tags=["OpenAI"])
async def models(exchange: HasExchange) -> ModelList:
    """List the model that is served, under each of its names."""
    return ModelList(data=[_model(exchange, name) for name in exchange.settings.model_names])


@router.get("/v1/models/{name:path}", tags=["OpenAI"])
async def model(name: str, exchange: HasExchange) -> Model:
    """Tell of one model."""
    exchange.require_model(name)
    return _model(exchange, name)


@router.post("/tokenize", tags=["Tokens"])
async def tokenize(body: TokenizeBody, exchange: HasExchange) -> Tokens:
    """Tell the tokens that a prompt has for this model, its template's among them."""
    exchange.require_model(body.model)
    options: dict[str, Any] = {}
    prompt: Any = body.prompt
    if body.messages is not None:
        prompt = [message.model_dump(exclude_unset=True) for message in body.messages]
        options = {
            "tools": [tool.model_dump() for tool in body.tools] if body.tools else None,
            "chat_template_kwargs": body.chat_template_kwargs,
        }
    if (body.messages is not None and body.prompt is not None) or prompt is None:
        exchange.refuse("prompt", "give a prompt or messages, one of them")
    request = await exchange.worker.read(lambda engine: engine.read(prompt, **options))
    return Tokens(
        count=request.tokens.size,
        max_model_len=exchange.worker.context_length,
        tokens=request.tokens.tolist(),
    )


@router.post("/detokenize", tags=["Tokens"])
async def detokenize(body: DetokenizeBody, exchange: HasExchange) -> Text:
    """Tell what tokens say."""
    exchange.require_model(body.model)

    def decode(engine: Engine) -> str:
        assert engine.tokenizer is not None
        return engine.tokenizer.decode(engine.encode(np.asarray(body.tokens)).tolist())

    return Text(prompt=await exchange.worker.read(decode))


def _model(exchange: Exchange, name: str) -> Model:
    return Model(id=name, created=exchange.started, object="model", owned_by="milepost")
