"""Table layout of the feature bank: what its numbers mean, and where an operand lies."""

from qtcore.features.primitives import RATIOS
from qtcore.jit import kernel

# Operations beyond those of `primitives`.
EMA, WILDER, RANK, MEND, TURN, HOURLY, ROW_MEAN, ROW_RANK, ROW_DISTANCE, ROW_PICK = range(RATIOS + 1, RATIOS + 11)

(
    SYMBOLS,  # S
    CHUNK,  # rows of a chunk
    PIECE,  # most rows that pass the operations at once: what one hands to the next stays in the cache
    WARMUP,  # bars before a symbol's first valid row
    PAST,  # rows of the longest past
    N_OPERATIONS,
    N_SHIFTS,
    N_SLOTS,
    PASTLESS,  # addresses from here on are the same in every piece
    OUT,  # address of the wanted planes
    COUNTS,  # address of scratch for one number per symbol
    CONSTANTS,  # address of two constants per operation
    SHIFTS,  # from here: address, length of the past and of the chunk of every plane with a past
    COUNTERS,  # from here: what a later block needs
    HEAD,
) = range(15)
ROWS, QUIET, SEEN = range(3)  # counters: rows since the start; rows since one where a symbol had no move; bars of every symbol
# The inputs, whose addresses stand from HEAD on: the last close, NaN before the listing; 1 / close; 1 at a bar; 1 at a bar that has one
# before it; volume, 0 at a hole; the last volume; open; high; low. The last four are copied only where somebody reads them.
CLOSE, INVERSE, MASK, MOVED, VOLUME, LAST_VOLUME, OPEN, HIGH, LOW, N_INPUTS = range(10)
OPERATIONS = HEAD + N_INPUTS
# An operation: code; when (0 always, n where a window of n rows may reach a hole, -n where it cannot); five operands; output; second
# output; state. An address below 0 is the wanted plane of slot -1 - address.
WIDTH = 10


@kernel
def place(address, pastless, at, out, block, start):
    """Where an operand of a piece is: `at` cells into the chunk, or `start` cells into a wanted plane of `block` cells."""
    inside = address + at if address < pastless else address
    return out - (address + 1) * block + start if address < 0 else inside
