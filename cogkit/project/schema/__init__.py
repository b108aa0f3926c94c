"""A predictor's OpenAPI schema from its source, by Python's own ``ast``: no user code is imported or run.

`generate_schema` makes it, `load_schema_file` takes one that the user wrote, and `validate_openapi` checks either.
`read_predictor` and `concurrency_max` answer what a build needs to know without a schema.
"""

from cogkit.project.schema.generate import SchemaResult, concurrency_max, generate_schema, read_predictor
from cogkit.project.schema.inputs import Input
from cogkit.project.schema.target import Mode, PredictorInfo
from cogkit.project.schema.validation import load_schema_file, validate_openapi

__all__ = [
    "Input",
    "Mode",
    "PredictorInfo",
    "SchemaResult",
    "concurrency_max",
    "generate_schema",
    "load_schema_file",
    "read_predictor",
    "validate_openapi",
]
