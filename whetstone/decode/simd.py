"""SIMD vectors of sixteen fp32 numbers, for kernels compiled by numba.

The compiler vectorises numba's loops by itself, but it keeps a loop's sums in memory if arrays might overlap. A vector of
this module is a value, so sums stay in registers:

    total = zeros()
    for t in range(n):
        total = fma(total, weights[t], load(values, t * LANES))
    store(out, 0, total)

Arrays are flat, of fp32, of uint16 that holds bf16 (the upper half of an fp32 number), or of int8. Indices are not checked.
"""

from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
_NOTHING = ir.Constant(_FLOATS, [0.0] * LANES)


class _BFloat(ir.Type):
    """LLVM's bf16, which llvmlite lacks."""

    def __str__(self):
        return "bfloat"

    _to_string = __str__

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash(_BFloat)


_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)


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
        return _NOTHING

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
def times(context, a, b):
    """The products of two vectors' numbers."""

    def code(context, builder, signature, arguments):
        return builder.fmul(*arguments)

    return _vector(_vector, _vector), code


@intrinsic
def store(context, flat, index, vector):
    """Write a vector to elements `index` to `index` + 15 of an fp32 array."""

    def code(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        builder.store(arguments[2], builder.bitcast(address, _FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(flat, types.intp, _vector), code


def _broadcast(builder, number):
    """A number of 32 bits in each place of a vector."""
    unset = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(unset, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, unset, ir.Constant(_WORDS, [0] * LANES))


def _add_product(builder, total, a, b):
    """total + a * b of fp32 vectors, or of vectors of pairs of bf16, whose two products are added."""
    if a.type == _FLOATS:
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
        return builder.call(function, [a, b, total])
    kind = ir.FunctionType(_FLOATS, [_FLOATS, _PAIRS, _PAIRS])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
    return builder.call(function, [total, builder.bitcast(a, _PAIRS), builder.bitcast(b, _PAIRS)])


@intrinsic
def fma(context, total, number, vector):
    """total + number * vector, rounded once."""

    def code(context, builder, signature, arguments):
        total, number, vector = arguments
        return _add_product(builder, total, _broadcast(builder, number), vector)

    return _vector(_vector, types.float32, _vector), code


@intrinsic
def add_times(context, total, a, b):
    """total + a * b of vectors, rounded once."""

    def code(context, builder, signature, arguments):
        return _add_product(builder, *arguments)

    return _vector(_vector, _vector, _vector), code


@intrinsic(prefer_literal=True)
def tile(
    context, x, at_x, width_x, weights, at, width, step, ahead, count, out, place, width_out, rows, most, vectors, add, level
):  # fmt: skip
    """Multiply `rows` rows of x, 1 to `most`, by `vectors` vectors of outputs, with all sums in registers.

    out[place + r * width_out + v * LANES + lane] = the sum over i < count, in this order and over one at least, of
    x[at_x + r * width_x + i] * weights[at + v * width + i * step + lane]. `add`, 0 or 1: whether the sum begins with what `out`
    holds, or with zero. For each of the weights that are read, the one `ahead` elements further is prefetched into the cache of
    this `level`; None: none is.

    x and weights are fp32, or uint32 that holds two bf16, whose two products are added (AVX512-BF16). The last four arguments
    are constants.
    """
    constants = most, vectors, add, level
    most, vectors, add, level = (constant.literal_value for constant in constants)
    ahead = ahead if ahead == types.none else types.intp
    kind = _FLOATS if weights.dtype == types.float32 else _WORDS

    def code(context, builder, signature, arguments):
        _, at_x, width_x, _, at, width, step, distance, count, _, place, width_out, rows, *_ = arguments

        def pointer(argument, index, step, times):
            data = context.make_array(signature.args[argument])(context, builder, arguments[argument]).data
            return builder.gep(data, [builder.add(index, builder.mul(step, step.type(times)))])

        def products(rows, i):
            at_i = builder.add(at, builder.mul(i, step))
            pointers = [pointer(3, at_i, width, v) for v in range(vectors)]
            for address in pointers if ahead != types.none else []:
                _prefetch(builder, builder.gep(address, [distance]), level)
            loaded = [builder.load(builder.bitcast(address, kind.as_pointer()), align=4) for address in pointers]
            for r in range(rows):
                number = _broadcast(builder, builder.load(pointer(0, builder.add(at_x, i), width_x, r)))
                yield from ((number, vector) for vector in loaded)

        def multiply(rows):
            columns = [builder.add(place, place.type(v * LANES)) for v in range(vectors)]
            outs = [pointer(9, column, width_out, r) for r in range(rows) for column in columns]
            outs = [builder.bitcast(address, _FLOATS.as_pointer()) for address in outs]
            begin = [builder.load(address, align=4) if add else _NOTHING for address in outs]
            for address, total in zip(outs, _sums(builder, count, begin, partial(products, rows)), strict=True):
                builder.store(total, address, align=4)

        _cases(builder, rows, most, multiply)
        return context.get_dummy_value()

    two, three = [types.intp] * 2, [types.intp] * 3
    return types.void(x, *two, weights, *three, ahead, types.intp, out, *three, *constants), code


def _cases(builder, number, most, code):
    """Code for each number from 1 to `most`, of which one runs."""
    done = builder.append_basic_block("done")
    switch = builder.switch(number, done)
    for case in range(1, most + 1):
        switch.add_case(number.type(case), block := builder.append_basic_block(f"case{case}"))
        builder.position_at_end(block)
        code(case)
        builder.branch(done)
    builder.position_at_end(done)


def _sums(builder, count, begin, products):
    """`begin` and, over i < count, the products of the pairs of vectors that products(i) gives: a loop."""
    before, loop, after = builder.block, builder.append_basic_block("sum"), builder.append_basic_block("summed")
    builder.branch(loop)
    builder.position_at_end(loop)
    i, sums = builder.phi(count.type), [builder.phi(_FLOATS) for _ in begin]
    added = [_add_product(builder, total, *pair) for total, pair in zip(sums, products(i), strict=True)]
    following = builder.add(i, i.type(1))
    for phi, first, later in zip([i, *sums], [i.type(0), *begin], [following, *added], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    return added


@intrinsic
def prefetch(context, flat, index):
    """Prefetch the cache line of an element. The index may lie outside the array."""

    def code(context, builder, signature, arguments):
        _prefetch(builder, _address(context, builder, signature, arguments))
        return context.get_dummy_value()

    return types.void(flat, types.intp), code


def _prefetch(builder, address, level=1):
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    settings = (number(value) for value in (0, 4 - level, 1))  # read, from this cache level on, data
    builder.call(function, [builder.bitcast(address, byte), *settings])
