"""Which conda packages PyPI has as well: the same software with the same version numbers."""

from __future__ import annotations

# Names compared with the public conda-forge -> PyPI mapping of prefix.dev (parselmouth); feedstocks build these from
# the release on PyPI. Not here on purpose: names that mean another thing there (lmdb and graphviz are C programs in
# conda), packages that are numbered differently (opencv, faiss), and those that tie in with a system (mpi4py, gdal).
_EQUAL = frozenset(
    """
    absl-py accelerate aiohttp albumentations attrs beautifulsoup4 boto3 botocore catboost certifi cffi click
    cloudpickle colorama cython dask datasets diffusers dill distributed einops evaluate filelock flask fsspec ftfy
    gcsfs gensim gymnasium h5py httpx huggingface-hub hydra-core imageio imbalanced-learn jinja2 joblib jsonschema
    kornia librosa lightgbm lightning lightning-utilities llvmlite loguru lxml matplotlib mlflow mlflow-skinny monai
    mpmath networkx nltk numba numpy omegaconf onnx onnxruntime openpyxl optuna packaging pandas peft pillow plotly
    polars protobuf psutil pyarrow pydantic pytest python-dateutil pytorch-lightning pytorch-metric-learning pytz
    pyyaml regex requests rich s3fs sacremoses safetensors scikit-image scikit-learn scipy seaborn
    segmentation-models-pytorch sentence-transformers sentencepiece setuptools shap shapely six spacy statsmodels
    sympy tabulate tensorboard tensorboardx termcolor threadpoolctl timm tokenizers toml torchmetrics tqdm
    transformers typing-extensions umap-learn urllib3 wandb webdataset wheel xarray xgboost xlrd zarr zstandard
    """.split()  # noqa: SIM905 - easier to read and to search than one quoted name a line
)
_OTHER = {
    "dask-core": "dask",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "py-xgboost": "xgboost",
    "pytables": "tables",
    "python-lmdb": "lmdb",
    "python-xxhash": "xxhash",
    "pytorch-geometric": "torch-geometric",
    "seaborn-base": "seaborn",
}
_TORCH = {"pytorch": "torch", "torchaudio": "torchaudio", "torchvision": "torchvision"}
_CHANNELS = frozenset(("anaconda", "conda-forge", "defaults", "main", "pkgs/main"))
_TORCH_CHANNELS = _CHANNELS | {"nvidia", "pytorch"}
# Which CUDA a job gets is the wheel's to say on PyPI, so a wish about it is not dropped silently.
_CUDA = frozenset(("cpuonly", "cudatoolkit", "cuda-toolkit", "cuda-version", "cudnn", "nccl", "pytorch-cuda"))


def pypi_name(channel: str | None, name: str) -> str | None:
    """Return what PyPI calls a package of a channel (None: not said), None when only conda has it."""
    plain = name.lower().replace("_", "-")
    if plain in _TORCH:
        return _TORCH[plain] if channel is None or channel in _TORCH_CHANNELS else None
    if channel is not None and channel not in _CHANNELS:
        return None
    return plain if plain in _EQUAL else _OTHER.get(plain)


def is_cuda(name: str) -> bool:
    """Tell whether it is a part of CUDA, which PyPI's torch brings itself."""
    return name.lower() in _CUDA
