"""Sixteen fp32 numbers at once, for kernels compiled by numba: what a CPU's vector registers are for.

numba's loops are vectorised by the compiler, who keeps what a loop adds up in memory where arrays might overlap. Here the
sums are values: they stay in registers.

    total = zeros()
    for t in range(n):
        total = add_product(total, weights[t], load(values, t * 16))
    put(out, 0, total)

Arrays are flat, fp32 or the upper halves of it (bf16) in uint16; nothing checks that places lie inside.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)


class _Lanes(types.Type):
    def __init__(self):
        super().__init__(name="Lanes")


_lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, front_end_type):
        super().__init__(manager, front_end_type, _FLOATS)


def _address(context, builder, signature, arguments):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]])


@intrinsic
def zeros(context):
    def code(context, builder, signature, arguments):
        return ir.Constant(_FLOATS, [0.0] * LANES)

    return _lanes(), code


@intrinsic
def load(context, flat, place):
    """Elements `place` … `place` + 15."""

    def code(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        if signature.args[0].dtype == types.uint16:
            halves = builder.load(builder.bitcast(address, _HALVES.as_pointer()), align=2)
            words = builder.shl(builder.zext(halves, _WORDS), ir.Constant(_WORDS, [16] * LANES))
            return builder.bitcast(words, _FLOATS)
        return builder.load(builder.bitcast(address, _FLOATS.as_pointer()), align=4)

    return _lanes(flat, types.intp), code


@intrinsic
def put(context, flat, place, lanes):
    """Write them to elements `place` … `place` + 15 of an fp32 array."""

    def code(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        builder.store(arguments[2], builder.bitcast(address, _FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(flat, types.intp, _lanes), code


@intrinsic
def add_product(context, total, number, lanes):
    """total + number * lanes, rounded once."""

    def code(context, builder, signature, arguments):
        total, number, lanes = arguments
        unset = ir.Constant(_FLOATS, ir.Undefined)
        first = builder.insert_element(unset, number, ir.Constant(ir.IntType(32), 0))
        everywhere = builder.shuffle_vector(first, unset, ir.Constant(_WORDS, [0] * LANES))
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
        return builder.call(function, [everywhere, lanes, total])

    return _lanes(_lanes, types.float32, _lanes), code


@intrinsic
def prefetch(context, flat, place):
    """Bring the cache line of an element nearer; the place may lie outside."""

    def code(context, builder, signature, arguments):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        address = builder.bitcast(_address(context, builder, signature, arguments), byte)
        builder.call(function, [address, *(number(value) for value in (0, 3, 1))])  # to read, into all levels, data
        return context.get_dummy_value()

    return types.void(flat, types.intp), code
