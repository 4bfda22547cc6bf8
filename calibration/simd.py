"""Vectors of numbers inside compiled loops: what one instruction does to several lanes at once.

numba alone leaves it to the compiler whether a loop over lanes becomes vector instructions, and
where arrays might overlap it does not. Here a vector is a value: `load`, `fill`, arithmetic,
`where_above`, `store`. LLVM cuts it to what the processor has, so the code runs anywhere and gives
the same bits: multiplications and additions are fused only where `fma` says so.

How many lanes: the length of the tuple `width`, which is part of a type, so the compiler knows it.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, overload, register_model

# Typed here: called from Python these functions are not what they are when compiled.
intrinsic: Callable[[Any], Any] = extending.intrinsic
_function: Any = cgutils.get_or_insert_function


class Vector(types.Type):
    """The type of `lanes` numbers of the type `element`."""

    def __init__(self, element: Any, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(name=f"Vector({element}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = manager.lookup(kind.element).get_data_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))  # type: ignore[no-untyped-call]


def address(context: Any, builder: Any, kind: Any, array: Any, index: Any, lanes: int) -> Any:
    """Return the pointer to a vector of the elements of a contiguous `array` from `index` on."""
    data = context.make_array(kind)(context, builder, array).data
    element = context.get_data_type(kind.dtype)
    return builder.bitcast(builder.gep(data, [index]), ir.VectorType(element, lanes).as_pointer())


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector of `lanes` times `value`."""
    vector = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    vector = builder.insert_element(vector, value, cgutils.int32_t(0))
    order = ir.Constant(ir.VectorType(cgutils.int32_t, lanes), [0] * lanes)
    return builder.shuffle_vector(vector, vector, order)


@intrinsic
def load(typing: Any, array: Any, index: Any, width: Any) -> Any:
    """Return the elements of a contiguous `array` from `index` (intp) on."""
    result = Vector(array.dtype, len(width))

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = address(context, builder, array, args[0], args[1], result.lanes)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return result(array, types.intp, width), code


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the memory of the element `index` (intp) of a contiguous `array`, if there is any."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(builder.gep(data, [args[1]]), byte)
        hint = ir.FunctionType(ir.VoidType(), [byte] + [cgutils.int32_t] * 3)
        function = _function(builder.module, hint, "llvm.prefetch.p0")
        builder.call(function, [pointer, *(cgutils.int32_t(x) for x in (0, 3, 1))])  # read, keep
        return context.get_dummy_value()

    return types.void(array, types.intp), code


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Set the elements of a contiguous `array` from `index` (intp) on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = address(context, builder, array, args[0], args[1], vector.lanes)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), code


@intrinsic
def fill(typing: Any, value: Any, width: Any) -> Any:
    """Return `value` in all lanes."""
    result = Vector(value, len(width))

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return splat(builder, args[0], result.lanes)

    return result(value, width), code


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a b + c``, rounded once."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        name = f"llvm.fma.v{a.lanes}f{a.element.bitwidth}"
        function = ir.FunctionType(vector, [vector] * 3)
        return builder.call(_function(builder.module, function, name), args)

    return a(a, a, a), code


@intrinsic
def where_above(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Return `yes` where ``a > b`` and `no` elsewhere."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return yes(a, a, yes, yes), code


@intrinsic
def any_unequal(typing: Any, a: Any, b: Any) -> Any:
    """Return whether `a` and `b` differ in any lane."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = ir.IntType(a.lanes)
        bits = builder.bitcast(builder.fcmp_unordered("!=", *args), mask)
        return builder.icmp_unsigned("!=", bits, mask(0))

    return types.boolean(a, a), code


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """Return the larger of two vectors of unsigned integers in each lane."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned(">", *args), *args)

    return a(a, a), code


@intrinsic
def any_above(typing: Any, a: Any, limit: Any, where: Any, none: Any) -> Any:
    """Return whether unsigned `a` is above `limit` in a lane in which `where` is not `none`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        above = builder.icmp_unsigned(">", args[0], splat(builder, args[1], a.lanes))
        here = builder.icmp_unsigned("!=", args[2], splat(builder, args[3], a.lanes))
        mask = ir.IntType(a.lanes)
        return builder.icmp_unsigned(
            "!=", builder.bitcast(builder.and_(above, here), mask), mask(0)
        )

    return types.boolean(a, a.element, where, where.element), code


def _arithmetic(symbol: Any, instruction: str) -> None:
    @intrinsic
    def operate(typing: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args)

        return a(a, a), code

    def call(a: Any, b: Any) -> Any:
        return operate(a, b)

    @overload(symbol)
    def overloaded(a: Any, b: Any) -> Any:
        if isinstance(a, Vector) and a == b:
            return call
        return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_symbol, _instruction)


def transposed(context: Any, builder: Any, kind: Any, args: Any, lanes: int) -> list[Any]:
    """Return `lanes` vectors: the elements k of each of as many rows of an array, k = 0, 1, ...

    `args` are the array of the type `kind`, the index of the first element, the distance from row
    to row, and the number of the last row, which stands for those after it.
    """
    array, start, stride, last = args
    rows = []
    for lane in range(lanes):
        number = stride.type(lane)
        if lane > 0:
            number = builder.select(builder.icmp_signed("<", number, last), number, last)
        index = builder.add(start, builder.mul(stride, number))
        pointer = address(context, builder, kind, array, index, lanes)
        rows.append(builder.load(pointer, align=kind.dtype.bitwidth // 8))
    kind_of_order = ir.VectorType(cgutils.int32_t, lanes)
    halves = (range(lanes // 2), range(lanes // 2, lanes)) if lanes > 1 else ()
    orders = [ir.Constant(kind_of_order, [k for j in h for k in (j, lanes + j)]) for h in halves]
    for _ in range(lanes.bit_length() - 1):  # interleaved log2(lanes) times, rows are columns
        pairs = zip(rows[: lanes // 2], rows[lanes // 2 :], strict=True)
        rows = [builder.shuffle_vector(a, b, order) for a, b in pairs for order in orders]
    return rows


def convert(context: Any, builder: Any, vector: Any, source: Any, target: Any) -> Any:
    """Return a vector of unsigned integers or floats as one of the type `target`, not narrower."""
    kind = ir.VectorType(context.get_data_type(target), vector.type.count)
    if isinstance(target, types.Float):
        if not isinstance(source, types.Float):
            return builder.uitofp(vector, kind)
        return vector if source == target else builder.fpext(vector, kind)
    return vector if source == target else builder.zext(vector, kind)


@intrinsic
def add_pixels(
    typing: Any,
    values: Any,
    start: Any,
    stride: Any,
    last: Any,
    bins: Any,
    pixel: Any,
    table: Any,
    width: Any,
) -> Any:
    """Add a square of `values`, lanes pixels of lanes rows (frames), to the rows of `table`.

    Pixel ``pixel + k`` of all frames goes to the row ``bins[pixel + k]`` of lanes elements. The row
    `last` of `values` stands for those after it.
    """
    lanes = len(width)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        columns = transposed(context, builder, values, args[:4], lanes)
        where = context.make_array(bins)(context, builder, args[4]).data
        for k, column in enumerate(columns):
            row = builder.load(builder.gep(where, [builder.add(args[5], args[5].type(k))]))
            index = builder.mul(builder.zext(row, args[5].type), args[5].type(lanes))
            pointer = address(context, builder, table, args[6], index, lanes)
            x = convert(context, builder, column, values.dtype, table.dtype)
            add = builder.fadd if isinstance(table.dtype, types.Float) else builder.add
            align = table.dtype.bitwidth // 8
            builder.store(add(builder.load(pointer, align=align), x), pointer, align=align)
        return context.get_dummy_value()

    args = (values, types.intp, types.intp, types.intp, bins, types.intp, table, width)
    return types.void(*args), code


@intrinsic
def take_pixels(
    typing: Any,
    values: Any,
    start: Any,
    stride: Any,
    last: Any,
    target: Any,
    first: Any,
    width: Any,
) -> Any:
    """Set `target` from `first` on to a square of `values`, lanes pixels of lanes rows (frames)."""
    lanes = len(width)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for k, column in enumerate(transposed(context, builder, values, args[:4], lanes)):
            index = builder.add(args[5], args[5].type(k * lanes))
            pointer = address(context, builder, target, args[4], index, lanes)
            x = convert(context, builder, column, values.dtype, target.dtype)
            builder.store(x, pointer, align=target.dtype.bitwidth // 8)
        return context.get_dummy_value()

    args = (values, types.intp, types.intp, types.intp, target, types.intp, width)
    return types.void(*args), code
