"""The lake: every intermediate dataset, model and metric, versioned. Imports neither prefect nor torch."""

from storage.errors import LakeError, UserError
from storage.lake import Lake
from storage.refs import DatasetRef, ModelRef, Ref
from storage.versions import OpenVersion, version_digest

__all__ = ["DatasetRef", "Lake", "LakeError", "ModelRef", "OpenVersion", "Ref", "UserError", "version_digest"]
