"""The lake: every intermediate dataset, model and metric, versioned. Imports neither prefect nor
torch.
"""

from dapflow.storage.errors import LakeError, UserError
from dapflow.storage.lake import Lake
from dapflow.storage.refs import DatasetRef, ModelRef, Ref
from dapflow.storage.versions import OpenVersion, version_digest

__all__ = [
    "DatasetRef",
    "Lake",
    "LakeError",
    "ModelRef",
    "OpenVersion",
    "Ref",
    "UserError",
    "version_digest",
]
