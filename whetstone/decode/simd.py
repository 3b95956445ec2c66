"""SIMD vectors of sixteen fp32 numbers, for kernels compiled by numba.

The compiler vectorises numba's loops by itself, but it keeps a loop's sums in memory if arrays might overlap. A vector of
this module is a value, so sums stay in registers:

    total = zeros()
    for t in range(n):
        total = fma(total, weights[t], load(values, t * LANES))
    store(out, 0, total)

Arrays are flat, of fp32, of uint16 that holds bf16 (the upper half of an fp32 number), or of int8. Indices are not checked.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)


class _Vector(types.Type):
    def __init__(self):
        super().__init__(name="Vector")


_vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, front_end_type):
        super().__init__(manager, front_end_type, _FLOATS)


def _address(context, builder, signature, arguments):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]])


@intrinsic
def zeros(context):
    def code(context, builder, signature, arguments):
        return ir.Constant(_FLOATS, [0.0] * LANES)

    return _vector(), code


@intrinsic
def load(context, flat, index):
    """Elements `index` to `index` + 15 as a vector."""

    def code(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        if signature.args[0].dtype == types.uint16:
            halves = builder.load(builder.bitcast(address, _HALVES.as_pointer()), align=2)
            words = builder.shl(builder.zext(halves, _WORDS), ir.Constant(_WORDS, [16] * LANES))
            return builder.bitcast(words, _FLOATS)
        if signature.args[0].dtype == types.int8:
            small = builder.load(builder.bitcast(address, _BYTES.as_pointer()), align=1)
            return builder.sitofp(builder.sext(small, _WORDS), _FLOATS)
        return builder.load(builder.bitcast(address, _FLOATS.as_pointer()), align=4)

    return _vector(flat, types.intp), code


@intrinsic
def element(context, flat, index):
    """An element of an fp32 array. Unlike `flat[index]` it has no case for a negative index, which slows a loop down."""

    def code(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature, arguments))

    return types.float32(flat, types.intp), code


@intrinsic
def _times(context, a, b):
    def code(context, builder, signature, arguments):
        return builder.fmul(*arguments)

    return _vector(_vector, _vector), code


def load_if(flat, index):
    """`load`, or None from None: code that uses it is compiled for both."""
    raise NotImplementedError


@overload(load_if, inline="always")
def _load_if_code(flat, index):
    if flat is types.none:
        return lambda flat, index: None
    return lambda flat, index: load(flat, index)


def times(a, b):
    """The products of two vectors' numbers; `a` if `b` is None."""
    raise NotImplementedError


@overload(times, inline="always")
def _times_code(a, b):
    if b is types.none:
        return lambda a, b: a
    return lambda a, b: _times(a, b)


@intrinsic
def store(context, flat, index, vector):
    """Write a vector to elements `index` to `index` + 15 of an fp32 array."""

    def code(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        builder.store(arguments[2], builder.bitcast(address, _FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(flat, types.intp, _vector), code


@intrinsic
def fma(context, total, number, vector):
    """total + number * vector, rounded once."""

    def code(context, builder, signature, arguments):
        total, number, vector = arguments
        unset = ir.Constant(_FLOATS, ir.Undefined)
        first = builder.insert_element(unset, number, ir.Constant(ir.IntType(32), 0))
        broadcast = builder.shuffle_vector(first, unset, ir.Constant(_WORDS, [0] * LANES))
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
        return builder.call(function, [broadcast, vector, total])

    return _vector(_vector, types.float32, _vector), code


@intrinsic
def prefetch(context, flat, index):
    """Prefetch the cache line of an element. The index may lie outside the array."""

    def code(context, builder, signature, arguments):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        address = builder.bitcast(_address(context, builder, signature, arguments), byte)
        builder.call(function, [address, *(number(value) for value in (0, 3, 1))])  # read, all cache levels, data
        return context.get_dummy_value()

    return types.void(flat, types.intp), code
