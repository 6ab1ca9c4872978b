"""Read an ONNX model without the onnx package, as far as it has to be looked at.

Read by protobuf, on which ONNX Runtime itself is built and which it brings along: bytes with two
readings (a field given twice, say) mean the same to both. Only what is looked at is declared;
a field of which only its absence matters is declared as bytes.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from runtime.errors import MalformedMessageError

_FieldProto = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int32": _FieldProto.TYPE_INT32,
    "int64": _FieldProto.TYPE_INT64,
    "string": _FieldProto.TYPE_STRING,
    "bytes": _FieldProto.TYPE_BYTES,
}

# message -> field -> (number, type, repeated), from the ONNX standard.
_MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "Model": {
        "ir_version": (1, "int64", False),
        "graph": (7, "Graph", False),
        "opset_import": (8, "OperatorSet", True),
        "training_info": (20, "bytes", True),
        "functions": (25, "bytes", True),
    },
    "OperatorSet": {"domain": (1, "string", False), "version": (2, "int64", False)},
    "Graph": {
        "node": (1, "Node", True),
        "initializer": (5, "Tensor", True),
        "input": (11, "Value", True),
        "output": (12, "Value", True),
        "sparse_initializer": (15, "bytes", True),
    },
    "Node": {
        "input": (1, "string", True),
        "output": (2, "string", True),
        "op_type": (4, "string", False),
        "attribute": (5, "Attribute", True),
        "domain": (7, "string", False),
    },
    "Attribute": {
        "name": (1, "string", False),
        "t": (5, "Tensor", False),
        "g": (6, "bytes", False),
        "ints": (8, "int64", True),
        "tensors": (10, "Tensor", True),
        "graphs": (11, "bytes", True),
        "ref_attr_name": (21, "string", False),
        "sparse_tensor": (22, "bytes", False),
        "sparse_tensors": (23, "bytes", True),
    },
    "Tensor": {
        "dims": (1, "int64", True),
        "name": (8, "string", False),
        "external_data": (13, "bytes", True),
        "data_location": (14, "int32", False),
    },
    "Value": {"name": (1, "string", False), "type": (2, "Type", False)},
    "Type": {"tensor_type": (1, "TensorType", False)},
    "TensorType": {"elem_type": (1, "int32", False), "shape": (2, "Shape", False)},
    "Shape": {"dim": (1, "Dimension", True)},
    "Dimension": {"dim_value": (1, "int64", False), "dim_param": (2, "string", False)},
}


def _model_class() -> type[Message]:
    """Build the classes in a pool of their own, where they cannot meet those of onnx."""
    file = descriptor_pb2.FileDescriptorProto(name="onnx_subset.proto", package="subset")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for field_name, (number, kind, repeated) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = _FieldProto.LABEL_REPEATED if repeated else _FieldProto.LABEL_OPTIONAL
            field.type = _SCALARS.get(kind, _FieldProto.TYPE_MESSAGE)
            if kind not in _SCALARS:
                field.type_name = f".subset.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    model: type[Message] = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("subset.Model")
    )
    return model


_Model = _model_class()


def read_model(payload: bytes) -> Message:
    """Parse a serialised ModelProto; raises MalformedMessageError."""
    try:
        return _Model.FromString(payload)
    except (DecodeError, ValueError) as error:
        raise MalformedMessageError(f"not an ONNX model: {error}") from error
