/* Publishing and taking weights, for the model checker spin.
 *
 * A publisher writes a version into the slot after that of the newest one, word by word, and may be killed between any
 * two stores (another one then goes on from the announced version). Each publication stands for one training step or for
 * STEPS of them, and raises the version by as many. A reader takes what it takes without waiting. Claimed: what a reader
 * takes is whole, is the version it says, and versions never go back; and whenever no publisher runs, the announced
 * version can be taken.
 *
 *   spin -run -DSAFETY proofs/weights.pml            (no error; nor with -DSTEPS=4, -DSTEPS=8)
 *   spin -DNO_ODD_MARK -run -DSAFETY proofs/weights.pml
 *   spin -DLENIENT -run -DSAFETY proofs/weights.pml
 *   spin -DSLOTS=1 -run -DSAFETY proofs/weights.pml
 */
#ifndef SLOTS
#define SLOTS 3
#endif
#ifndef STEPS
#define STEPS 1
#endif
#if STEPS == 1
#define LAST 5 /* publications */
#else
#define LAST 4
#endif
#ifndef CRASHES
#define CRASHES 2
#endif

byte sequence[SLOTS];
byte first[SLOTS]; /* two words of weights: a version's are both its number */
byte second[SLOTS];
byte version = 0;
byte published = 0; /* publications that were announced */
byte crashes = 0;
bool publishing = false;

inline crash_or_go_on() {
    if
    :: crashes < CRASHES -> crashes++; publishing = false; goto again
    :: true
    fi
}

proctype publisher() {
    byte v, j;
again: /* a new publisher takes the announced version and its slot as its starting point */
    do
    :: published < LAST ->
        publishing = true;
        if
        :: v = version + 1
        :: v = version + STEPS
        fi;
        atomic { /* nobody else writes */
            j = 0;
            do
            :: sequence[j] != 2 * version && j + 1 < SLOTS -> j++
            :: else -> break
            od;
            j = (j + 1) % SLOTS
        }
#ifndef NO_ODD_MARK
        sequence[j] = 2 * v - 1;
        crash_or_go_on();
#endif
        first[j] = v;
        crash_or_go_on();
        second[j] = v;
        crash_or_go_on();
        sequence[j] = 2 * v;
        crash_or_go_on();
        atomic { version = v; published++; publishing = false }
    :: else -> break
    od
}

proctype reader() {
    byte have = 0, v, j, before, one, two;
    bool quiet;
    do
    :: published < LAST || have < version ->
        quiet = false;
        atomic { v = version; quiet = !publishing }
        if
        :: v == have && !quiet -> skip
        :: else ->
            j = 0;
            before = sequence[0];
            do /* the slot that holds this version; a lenient reader is content with a later one */
#ifdef LENIENT
            :: (before % 2 == 1 || before < 2 * v) && j + 1 < SLOTS ->
#else
            :: before != 2 * v && j + 1 < SLOTS ->
#endif
                j++;
                before = sequence[j]
            :: else -> break
            od;
#ifdef LENIENT
            if
            :: before % 2 == 1 || before < 2 * v -> goto missed
            :: else
            fi;
#else
            if
            :: before != 2 * v -> goto missed
            :: else
            fi;
#endif
            one = first[j];
            two = second[j];
            if
            :: sequence[j] != before -> goto missed
            :: else
            fi;
            assert(one == two); /* whole */
            assert(one == before / 2); /* and what it says */
            assert(before / 2 >= have); /* and not older */
            have = before / 2
        fi;
        goto next;
missed:
        /* Nothing may stand in the way of a reader if nobody published since it looked. */
        atomic { assert(!(quiet && !publishing && version == v && sequence[j] == before)) };
next:
        skip
    :: true -> break
    od
}

init {
    atomic {
        run publisher();
        run reader()
    }
}
