"""The arrays of a ``Room``, for the kernels: each is made where it is needed from its address, in the order of the fields.

Handed over as a tuple, thirty arrays would be two hundred arguments of every call; that took most of the time, and of the compile time.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import carray

from gptwright.corpus.signals.jit import inlined, pointer


@inlined
def get_flags(room):
    return carray(pointer(room[0, 0]), room[0, 1], np.uint32)


@inlined
def get_lower(room):
    return carray(pointer(room[1, 0]), room[1, 1], np.int32)


@inlined
def get_classes(room):
    return carray(pointer(room[2, 0]), room[2, 1], np.uint8)


@inlined
def get_keys(room):
    return carray(pointer(room[3, 0]), room[3, 1], np.uint64)


@inlined
def get_values(room):
    return carray(pointer(room[4, 0]), room[4, 1], np.int64)


@inlined
def get_cp(room):
    return carray(pointer(room[5, 0]), room[5, 1], np.int32)


@inlined
def get_fl(room):
    return carray(pointer(room[6, 0]), room[6, 1], np.uint32)


@inlined
def get_wb(room):
    return carray(pointer(room[7, 0]), room[7, 1], np.uint8)


@inlined
def get_starts(room):
    return carray(pointer(room[8, 0]), room[8, 1], np.int64)


@inlined
def get_text(room):
    return carray(pointer(room[9, 0]), room[9, 1], np.int32)


@inlined
def get_text_fl(room):
    return carray(pointer(room[10, 0]), room[10, 1], np.uint32)


@inlined
def get_text_wb(room):
    return carray(pointer(room[11, 0]), room[11, 1], np.uint8)


@inlined
def get_run(room):
    return carray(pointer(room[12, 0]), (room[12, 1], room[12, 2]), np.int32)


@inlined
def get_kind(room):
    return carray(pointer(room[13, 0]), (room[13, 1], room[13, 2]), np.int32)


@inlined
def get_pool(room):
    return carray(pointer(room[14, 0]), (room[14, 1], room[14, 2]), np.int32)


@inlined
def get_stream(room):
    return carray(pointer(room[15, 0]), (room[15, 1], room[15, 2]), np.int32)


@inlined
def get_word(room):
    return carray(pointer(room[16, 0]), (room[16, 1], room[16, 2]), np.int32)


@inlined
def get_uni(room):
    return carray(pointer(room[17, 0]), (room[17, 1], room[17, 2]), np.int32)


@inlined
def get_touched(room):
    return carray(pointer(room[18, 0]), (room[18, 1], room[18, 2]), np.int32)


@inlined
def get_line(room):
    return carray(pointer(room[19, 0]), (room[19, 1], room[19, 2]), np.int32)


@inlined
def get_page(room):
    return carray(pointer(room[20, 0]), (room[20, 1], room[20, 2]), np.int32)


@inlined
def get_drop(room):
    return carray(pointer(room[21, 0]), room[21, 1], np.uint8)


@inlined
def get_para(room):
    return carray(pointer(room[22, 0]), (room[22, 1], room[22, 2]), np.int32)


@inlined
def get_list(room):
    return carray(pointer(room[23, 0]), (room[23, 1], room[23, 2]), np.int32)


@inlined
def get_once(room):
    return carray(pointer(room[24, 0]), (room[24, 1], room[24, 2]), np.int32)


@inlined
def get_size(room):
    return carray(pointer(room[25, 0]), room[25, 1], np.int64)


@inlined
def get_runs(room):
    return carray(pointer(room[26, 0]), room[26, 1], np.uint64)


@inlined
def get_words(room):
    return carray(pointer(room[27, 0]), room[27, 1], np.uint64)


@inlined
def get_unis(room):
    return carray(pointer(room[28, 0]), room[28, 1], np.uint64)


@inlined
def get_others(room):
    return carray(pointer(room[29, 0]), (room[29, 1], room[29, 2]), np.uint64)


@inlined
def get_copies(room):
    return carray(pointer(room[30, 0]), room[30, 1], np.uint64)


@inlined
def get_stamp(room):
    return carray(pointer(room[31, 0]), room[31, 1], np.int64)
