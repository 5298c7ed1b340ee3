"""The endpoints of the service."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, FailFast, Field
from starlette.exceptions import HTTPException

import afqmc
from afqmc.inference.explanation import words_of
from afqmc.inference.predictor import Predictor, check_pair
from afqmc.inference.serving.batcher import Batcher, QueueFullError, SentencePair
from afqmc.inference.serving.guard import INTERNAL_ERROR, Guard
from afqmc.inference.serving.json_log import configure_json_log, log_event
from afqmc.inference.serving.pages import docs_page, page_asset
from afqmc.inference.serving.service_metrics import ServiceMetrics
from afqmc.inference.serving.settings import (
    MAX_BODY,
    MAX_CHARACTERS,
    MAX_EXPLANATIONS,
    MAX_WORDS,
    ServeSettings,
)

_WARM_UP = ("怎么还款", "如何还款")
_ERRORS = {
    401: "the token is missing or wrong",
    408: "the body did not arrive in time",
    413: "the body is too large, or has more pairs than the queue",
    415: "the body is not declared as application/json",
    422: "the body is not valid",
    429: "the queue is full; Retry-After gives the seconds to wait",
    504: "no answer in time",
}


class PredictRequest(BaseModel):
    """The pairs to predict."""

    model_config = ConfigDict(extra="forbid")

    pairs: Annotated[list[tuple[str, str]], FailFast(), Field(min_length=1, examples=[[["怎么还款", "如何还花呗"]]])]


class Prediction(BaseModel):
    """The prediction of a pair. All values are null if the logits are not finite."""

    logits: list[float | None] = Field(description="one per label")
    probability: float | list[float] | None = Field(
        description="that of the second label if there are two, else one per label"
    )
    prediction: str | None = Field(description="the predicted label")
    truncated: bool = Field(default=False, description="true if the pair has too many tokens and was cut, else missing")


class PredictAnswer(BaseModel):
    """One prediction per pair, in the order of the request."""

    predictions: list[Prediction]


class ExplainRequest(BaseModel):
    """The pair to explain."""

    model_config = ConfigDict(extra="forbid")

    pair: tuple[str, str] = Field(examples=[["怎么还款", "如何还花呗"]])


class Word(BaseModel):
    """A word and its contribution: the probability with it minus that without it."""

    sentence: int = Field(description="1 or 2")
    start: int = Field(description="index of its first character")
    word: str
    contribution: float


class ExplainAnswer(BaseModel):
    """The contribution of each word to the probability of one label."""

    label: str
    probability: float
    words: list[Word]


class Problem(BaseModel):
    """The reason for which a request was not answered."""

    error: str


class ModelAnswer(BaseModel):
    """The labels and the rule for the prediction."""

    labels: list[str] = Field(description="in class order; the second of two is the positive one")
    threshold: float | None = Field(description="the probability from which the second of two labels is predicted")
    engine: str = Field(description="what computes the logits")
    max_length: int = Field(description="tokens per pair; longer ones are cut")
    version: str


def build_app(settings: ServeSettings, predictor: Predictor | None = None) -> Guard:
    """Return the service as an ASGI application. Its start loads the run, unless ``predictor`` is given."""
    configure_json_log()
    metrics = ServiceMetrics(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
    app = FastAPI(
        title="afqmc",
        version=afqmc.__version__,
        lifespan=partial(_lifespan, settings=settings, predictor=predictor, metrics=metrics),
        docs_url=None,  # FastAPI's own pages load scripts from another server
        redoc_url=None,
        max_body_size=MAX_BODY,
    )
    app.state.settings, app.state.metrics, app.state.ready = settings, metrics, False
    _add_endpoints(app)
    _add_pages(app)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(QueueFullError, _on_full)
    app.add_exception_handler(TimeoutError, _on_timeout)
    app.add_exception_handler(Exception, _on_failure)
    return Guard(app, settings.token, metrics, settings.timeout_s)


@contextlib.asynccontextmanager
async def _lifespan(
    app: FastAPI, settings: ServeSettings, predictor: Predictor | None, metrics: ServiceMetrics
) -> AsyncIterator[None]:
    """Load the run and start the batcher; at the end, when all requests are answered, stop both."""
    loaded = predictor or Predictor.load(settings.run_dir, settings.device, settings.trust, engine=settings.engine)
    loaded.predict([_WARM_UP])

    def on_batch(pairs: int, seconds: float) -> None:
        metrics.on_batch(pairs, seconds, batcher.waiting)

    batcher = Batcher(
        loaded.predict, settings.max_batch, settings.max_delay_s, settings.queue, settings.timeout_s, on_batch
    )
    state = app.state
    state.predictor, state.batcher = loaded, batcher
    state.explainer, state.explanations = ThreadPoolExecutor(1, thread_name_prefix="explain"), 0
    running = asyncio.create_task(batcher.run())
    state.ready = True
    log_event("loaded", labels=list(loaded.labels), engine=loaded.engine.name, reason=loaded.engine.note)
    yield
    state.ready = False
    running.cancel()
    batcher.close()
    state.explainer.shutdown(cancel_futures=True)
    log_event("stopped")


def _add_endpoints(app: FastAPI) -> None:
    """Add what programs use."""
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": text} for status, text in _ERRORS.items()
    }

    @app.post("/predict", response_model=PredictAnswer, responses=problems, summary="Predict pairs of sentences")
    async def predict(request: Request, body: PredictRequest) -> Response:
        settings: ServeSettings = app.state.settings
        pairs = body.pairs
        _note(request, pairs, settings)
        if len(pairs) > settings.queue:
            raise HTTPException(413, f"pairs: at most {settings.queue} per request")
        for index, pair in enumerate(pairs):
            _check(pair, f"pairs[{index}]")
        rows = await app.state.batcher.submit(pairs)
        if count := sum("truncated" in row for row in rows):
            request.state.fields["truncated"] = count
        return JSONResponse({"predictions": [_without_id(row) for row in rows]})

    @app.post("/explain", response_model=ExplainAnswer, responses=problems, summary="Contribution of each word")
    async def explain(request: Request, body: ExplainRequest) -> Response:
        state, settings = app.state, app.state.settings
        _note(request, [body.pair], settings)
        _check(body.pair, "pair")
        if sum(len(words_of(sentence)) for sentence in body.pair) > MAX_WORDS:
            raise HTTPException(413, f"pair: at most {MAX_WORDS} words are explained")
        if state.explanations >= MAX_EXPLANATIONS:
            raise QueueFullError(1)
        state.explanations += 1
        try:
            async with asyncio.timeout(settings.timeout_s):
                loop = asyncio.get_running_loop()
                explanation = await loop.run_in_executor(state.explainer, state.predictor.explain, *body.pair)
        finally:
            state.explanations -= 1
        return JSONResponse(asdict(explanation))

    @app.get("/model", response_model=ModelAnswer, summary="Labels and threshold")
    async def model() -> Response:
        predictor: Predictor = app.state.predictor
        answer = ModelAnswer(
            labels=list(predictor.labels),
            threshold=predictor.threshold,
            engine=predictor.engine.name,
            max_length=predictor.pair_tokenizer.max_length,
            version=afqmc.__version__,
        )
        return JSONResponse(answer.model_dump())

    @app.get("/health", summary="Whether the process works")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/ready", summary="Whether the model is loaded; status 503 if not")
    async def ready() -> Response:
        if not app.state.ready:
            raise HTTPException(503, "not ready")
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", summary="Metrics for Prometheus")
    async def metrics() -> Response:
        app.state.metrics.waiting.set(app.state.batcher.waiting)
        return Response(app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI) -> None:
    """Add what a browser shows, and what the page needs."""
    for path, name, kind in (
        ("/", "page.html", "text/html"),
        ("/page.css", "page.css", "text/css"),
        ("/page.js", "page.js", "text/javascript"),
    ):
        app.add_api_route(path, _asset_endpoint(name, kind), include_in_schema=False)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/examples", summary="Dev pairs that the run got wrong, the most confident errors first")
    async def examples() -> Response:
        settings: ServeSettings = app.state.settings
        return JSONResponse({"examples": settings.examples, "missing": settings.examples_missing})


def _asset_endpoint(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = page_asset(name)

    async def asset() -> Response:
        return Response(content, media_type=kind)

    return asset


def _check(pair: SentencePair, name: str) -> None:
    """Check a pair by the rules of ``predict``; answers name the pair, and do not quote it."""
    try:
        check_pair(pair)
    except ValueError as error:
        raise HTTPException(422, f"{name}: {error}") from error
    if max(map(len, pair)) > MAX_CHARACTERS:
        raise HTTPException(422, f"{name}: at most {MAX_CHARACTERS} characters per sentence")


def _note(request: Request, pairs: Sequence[SentencePair], settings: ServeSettings) -> None:
    """Add the pairs to the log line of the request."""
    request.state.fields["pairs"] = len(pairs)
    if settings.log_texts:
        request.state.fields["texts"] = pairs


def _without_id(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Name the first invalid value. The input is not repeated: it may be large, or not be UTF-8."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _problem(422, f"body: not valid JSON: {first['ctx']['error']}")
    keys = [key for key in first["loc"] if key != "body"]
    name = "".join(f"[{key}]" if isinstance(key, int) else str(key) for key in keys) or "body"
    return _problem(422, f"{name}: {first['msg']}")


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, str(error.detail), error.headers)


async def _on_full(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueueFullError)
    return _problem(429, "the queue is full", {"retry-after": str(error.retry_after_s)})


async def _on_timeout(request: Request, error: Exception) -> Response:
    return _problem(504, "no answer in time")


async def _on_failure(request: Request, error: Exception) -> Response:
    return _problem(500, INTERNAL_ERROR)  # the guard logs the error


def _problem(status: int, error: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": error}, status, headers)
