/* Appending and sampling records, for the model checker spin.
 *
 * One writer appends records into a ring, row by row and word by word, and may be killed between any two stores; its
 * successor settles the counters. A reader samples without waiting. Claimed: a record that a reader keeps is whole and is
 * the one it asked for; no record that was announced is ever made again; a kill loses at most the record in flight.
 *
 *   spin -run -DSAFETY proofs/ring.pml                             (no error)
 *   spin -DNO_INVALIDATION -run -DSAFETY proofs/ring.pml
 *   spin -DCOUNT_FIRST -run -DSAFETY proofs/ring.pml
 *   spin -DREORDER -run -DSAFETY proofs/ring.pml                   (stores in any order, sequence alone)
 *   spin -DREORDER -DCHECKSUM -run -DSAFETY proofs/ring.pml        (no error)
 */
#define CAPACITY 2
#define LAST 5 /* records appended */
#ifdef REORDER
#define CRASHES 0
#else
#define CRASHES 2
#endif

byte sequence[CAPACITY];
byte first[CAPACITY]; /* two words of a record: both are its number */
byte second[CAPACITY];
short sum[CAPACITY];
byte head = 0;
byte crashes = 0;
byte lost = 0;
byte appended = 0; /* decisions counted */

#define SUM(n, a, b) ((n) * 49 + (a) * 7 + (b) + 1)

inline crash_or_go_on() {
    if
    :: crashes < CRASHES -> crashes++; goto settle
    :: true
    fi
}

proctype writer() {
    byte n, r, before;
    bool a, b, c, d;
again:
    do
    :: appended < LAST ->
        appended++;
        n = head + 1;
        r = (n - 1) % CAPACITY;
#ifdef REORDER
        /* Each store becomes visible when it likes; only head is looked at by other rules (see the page). */
        a = false; b = false; c = false; d = false;
        sequence[r] = 0;
        do
        :: !a -> first[r] = n; a = true
        :: !b -> second[r] = n; b = true
        :: !c -> sum[r] = SUM(n, n, n); c = true
        :: !d -> sequence[r] = n; d = true
        :: !d && a && b && c -> sequence[r] = n; d = true
        :: d && head < n -> head = n
        :: a && b && c && d && head == n -> break
        od
#else
#ifdef COUNT_FIRST
        head = n;
        crash_or_go_on();
#endif
#ifndef NO_INVALIDATION
        sequence[r] = 0;
        crash_or_go_on();
#endif
        first[r] = n;
        crash_or_go_on();
        second[r] = n;
        crash_or_go_on();
        sum[r] = SUM(n, n, n);
        crash_or_go_on();
        sequence[r] = n;
        crash_or_go_on();
        head = n;
        crash_or_go_on()
#endif
    :: else -> break
    od;
    goto done;
settle: /* the next owner */
    before = lost;
    n = head + 1;
    r = (n - 1) % CAPACITY;
    if
    :: sequence[r] == n && sum[r] == SUM(n, first[r], second[r]) -> head = n
    :: else
    fi;
    lost = appended - head;
    assert(lost <= before + 1);
    goto again;
done:
    assert(appended == head + lost)
}

proctype reader() {
    byte n, r, one, two;
    short got;
    do
    :: true ->
        if
        :: head == 0 -> goto next
        :: head >= 1 -> n = head
        :: head >= 2 -> n = head - 1
        fi;
        r = (n - 1) % CAPACITY;
        one = first[r];
        two = second[r];
        got = sum[r];
        if
        :: sequence[r] != n -> goto next
        :: else
        fi;
#ifdef CHECKSUM
        if
        :: got != SUM(n, one, two) -> goto next
        :: else
        fi;
#endif
        assert(one == n && two == n);
next:
        skip
    :: true -> break
    od
}

init {
    atomic {
        run writer();
        run reader()
    }
}
