/* Publishing and taking weights, for the model checker spin.
 *
 * A publisher writes version v into slot v % SLOTS, word by word, and may be killed between any two stores (another one
 * then goes on from the announced version). A reader takes what it takes without waiting. Claimed: what a reader takes
 * is whole, is the version it says, and versions never go back; and whenever no publisher runs, the announced version
 * can be taken.
 *
 *   spin -run -DSAFETY proofs/weights.pml            (no error)
 *   spin -DNO_ODD_MARK -run -DSAFETY proofs/weights.pml
 *   spin -DLENIENT -run -DSAFETY proofs/weights.pml
 *   spin -DSLOTS=1 -run -DSAFETY proofs/weights.pml
 */
#ifndef SLOTS
#define SLOTS 3
#endif
#define LAST 5 /* versions published */
#ifndef CRASHES
#define CRASHES 2
#endif

byte sequence[SLOTS];
byte first[SLOTS]; /* two words of weights: a version's are both its number */
byte second[SLOTS];
byte version = 0;
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
again: /* a new publisher takes the announced version as its starting point */
    do
    :: version < LAST ->
        publishing = true;
        v = version + 1;
        j = v % SLOTS;
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
        version = v;
        publishing = false
    :: else -> break
    od
}

proctype reader() {
    byte have = 0, v, j, before, one, two;
    bool quiet;
    do
    :: have < LAST ->
        quiet = false;
        atomic { v = version; quiet = !publishing }
        if
        :: v == have && !quiet -> skip
        :: else ->
            j = v % SLOTS;
            before = sequence[j];
#ifdef LENIENT
            if
            :: before % 2 == 1 -> goto missed
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
