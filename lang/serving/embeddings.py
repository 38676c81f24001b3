"""/v1/embeddings: the model's hidden states of texts, or of token ids (docs/language.md#hidden-states)."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ...backends.embedding import Embedded
from ...backends.local import LocalBackend
from ...runtime.backend import Pooling
from .completions import given_prompts
from .errors import Gone, invalid
from .fields import Embedding


class Embeddings:
    """A request for hidden states. On the event loop that is to hear of them. Raises ApiError, RequestError."""

    def __init__(self, fields: Embedding, backend: LocalBackend, model: str) -> None:
        hidden_size = backend.model.config.hidden_size
        if fields.encoding_format not in (None, "float", "base64"):
            raise invalid('encoding_format is "float" or "base64"', "encoding_format")
        if fields.dimensions not in (None, hidden_size):
            raise invalid(f"dimensions cannot be chosen: this model's vectors have {hidden_size}", "dimensions")
        if fields.pooling not in (None, *get_args(Pooling)):
            raise invalid('pooling is "last" or "mean"', "pooling")
        prompts = [given.token_ids for given in given_prompts(backend, fields.input, "input")]
        self.prompt_tokens = sum(map(len, prompts))
        self._model = model
        self._is_coded = fields.encoding_format == "base64"
        self._is_cancelled = False
        pooling: Any = fields.pooling or "last"
        self._asked = Embedded(backend.engine, prompts, pooling, fields.start or 0, hidden_size)
        self._asked.begin()

    def cancel(self) -> None:
        """Nobody wants them any more."""
        self._is_cancelled = True
        self._asked.cancel()

    async def answer(self) -> dict[str, Any]:
        """The answer, once all are there. Raises what the first that failed raised, Gone if it was cancelled."""
        home, ended = asyncio.get_running_loop(), asyncio.Event()
        self._asked.ended.add_callback(lambda _: home.call_soon_threadsafe(ended.set))
        await ended.wait()
        if self._is_cancelled:
            raise Gone
        self._asked.ended.result()
        data = [
            {"object": "embedding", "index": index, "embedding": self._told(vector)}
            for index, vector in enumerate(self._asked.found)
        ]
        usage = {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}
        return {"object": "list", "data": data, "model": self._model, "usage": usage}

    def _told(self, vector: NDArray[np.float32]) -> Any:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode() if self._is_coded else vector.tolist()
