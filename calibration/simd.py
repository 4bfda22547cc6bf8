"""Vectors of numbers inside compiled loops: what one instruction does to several lanes at once.

numba alone leaves it to the compiler whether a loop over lanes becomes vector instructions, and
where arrays might overlap it does not. Here a vector is a value: `load`, `fill`, arithmetic,
`where_above`, `store`. LLVM cuts it to what the processor has, so the code runs anywhere and gives
the same bits: multiplications and additions are fused only where `fma` says so.

How many lanes: the length of the tuple `width`, because a type says it and is known to the compiler.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model


class Vector(types.Type):  # type: ignore[misc]
    """The type of `lanes` numbers of the type `element`."""

    def __init__(self, element: Any, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(name=f"Vector({element}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = manager.lookup(kind.element).get_data_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))


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
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)

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
        bits = builder.fcmp_unordered("!=", *args)
        return builder.icmp_unsigned(
            "!=", builder.bitcast(bits, ir.IntType(a.lanes)), ir.IntType(a.lanes)(0)
        )

    return types.boolean(a, a), code


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
