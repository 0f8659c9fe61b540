/*
 * Epochs and handshakes of two nodes, as encap/sealed and encap/sealed/handshake have
 * them. README.md says what is modelled and what is not; names in comments are the code's.
 *
 * Everything that goes wrong has a budget, so every run ends; then both nodes must have
 * keys that the other one opens (inline quiescent).
 */

#ifndef EPOCHS
#define EPOCHS 4	/* handshakes in all */
#endif
#ifndef REKEYS
#define REKEYS 1	/* times that keys are replaced though they work */
#endif
#ifndef LOSSES
#define LOSSES 1	/* connections that break */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef AGED
#define AGED 0		/* dials that count as older than simultaneousOpen allows */
#endif
#ifndef CUTS
#define CUTS 1		/* node 0's list loses node 1 */
#endif
#ifndef SEALS
#define SEALS 0		/* packets of the lanes */
#endif
#ifndef DELIVERIES
#define DELIVERIES 0	/* datagrams that reach a node, in any order, one several times */
#endif
#ifndef MAXLIVE
#define MAXLIVE 2	/* maxEpochs */
#endif

#define NONE 255
#define BIT(set, i) (((set) >> (i)) & 1)
#define ADD(set, i) set = set | (1 << (i))
#define DEL(set, i) set = set & ~(1 << (i))
#define SET(e) ((e) == NONE -> 0 : 1 << (e))	/* the set of one epoch, or of none */
#define ODD(n, e) ((n) * EPOCHS + (e))	/* one of a node and an epoch */

/* A node. All of it is gone with the process. */
bool gone[2];		/* the peer is in the list no more (Peer.gone) */
byte live[2];		/* set of epochs that have begun and not ended (Peer.epochs) */
byte open[2];		/* set of those whose datagrams are opened (Epoch.Expect) */
byte using[2] = NONE;	/* what is sealed with (Peer.sending) */
byte dial[2] = NONE;	/* the own dial (link.dial) */
byte ans[2] = NONE;	/* the handshake that is being answered (link.answering) */
bool begun[2];		/* the answer's epoch has begun */
bool wants[2];		/* the connection was lost, or keys are due */
bool refused[2];	/* the own dial was refused as busy */

/* Connections, by the epoch that they make. */
byte next;		/* the next one */
byte dialer[EPOCHS];
byte hello;		/* set: the acceptor's hello is under way to the dialer */
byte eof;		/* set: the dialer has ended the stream */
byte dead;		/* set: the connection is closed or lost */

/* Ghosts: what has ever been. */
byte could[2];		/* set of epochs that the node could ever open */
byte used[2];		/* set of epochs that the node has used */
byte fresh[2];		/* set of epochs begun in the node's present life */
bool cut;		/* node 0 has cut node 1 off */

byte rekeys = REKEYS, losses = LOSSES, crashes = CRASHES, aged = AGED, cuts = CUTS, seals = SEALS, deliveries = DELIVERIES;

/* Datagrams: lane 0 is a lane's, lane 1 the control lane, which sends what has waited. */
#define LANES 2
#define COUNTERS 4
byte counter[2 * EPOCHS * LANES];	/* the sealer's next */
byte sent[2 * EPOCHS * LANES];		/* set of counters that were sealed */
byte seen[2 * EPOCHS * LANES];		/* the receiver's window, by the sender */
byte handed[2 * EPOCHS * LANES];	/* ghost: set of counters that were delivered */
#define KEY(n, e, lane) (ODD(n, e) * LANES + (lane))
#ifdef DEFECT_4	/* both directions have one key */
#define SENT(n, e, lane) KEY(0, e, lane)
#else
#define SENT(n, e, lane) KEY(n, e, lane)
#endif
#ifdef DEFECT_11	/* there is no window */
#define window(n, e, lane) 0
#else
#define window(n, e, lane) seen[KEY(n, e, lane)]
#endif

inline endEpoch(n, e) {
#ifndef DEFECT_1	/* an epoch that has ended is still opened */
	DEL(open[n], e);
#endif
	DEL(live[n], e);
	if :: using[n] == e -> using[n] = NONE :: else fi
}

/* stopDialing: the dial gives its epoch up (offer), its connection is closed. */
inline stopDial(n) {
	if
	:: dial[n] != NONE -> ADD(dead, dial[n]); endEpoch(n, dial[n]); dial[n] = NONE
	:: else
	fi
}

/* Peer.Begin: where there are too many epochs, the oldest ends that is not sealed with. */
inline begin(n, e) {
	i = 0; oldest = NONE; count = 0;
	do
	:: i < EPOCHS ->
		if
		:: BIT(live[n], i) -> count++;
			if :: oldest == NONE && i != using[n] -> oldest = i :: else fi
		:: else
		fi;
		i++
	:: else -> break
	od;
	if :: count == MAXLIVE -> endEpoch(n, oldest) :: else fi;
	ADD(live[n], e); ADD(fresh[n], e);
	i = 0; oldest = 0; count = 0
}

inline expect(n, e) {
	if :: BIT(live[n], e) -> ADD(open[n], e); ADD(could[n], e) :: else fi
}

/* One datagram is sealed, by who reads the counter, seals and counts up. */
inline seal(n, e, lane) {
	assert(!(n == 0 && cut));				/* nothing is sealed after the cut-off */
	assert(BIT(could[1-n], e));				/* nothing before the peer could open it */
	assert(!BIT(sent[SENT(n, e, lane)], counter[KEY(n, e, lane)]));	/* no nonce twice */
	ADD(sent[SENT(n, e, lane)], counter[KEY(n, e, lane)])
}

/* Epoch.Use: once for an epoch and end, and only if the epoch has not ended meanwhile. */
inline use(n, e) {
	if
#ifdef DEFECT_2		/* takeWaiting doesn't look whether the epoch has ended */
	:: true ->
#else
	:: BIT(live[n], e) ->
#endif
		assert(!(n == 0 && cut));
		assert(BIT(could[1-n], e));			/* the peer has the keys */
		assert(dialer[e] == n || BIT(used[dialer[e]], e));	/* the acceptor is last */
		assert(!BIT(used[n], e));			/* injective: each epoch is used once */
		assert(BIT(fresh[n], e));			/* and by the life that agreed on it */
		ADD(used[n], e);
#if SEALS
		if
		:: seals > 0 -> seals--; seal(n, e, 1); counter[KEY(n, e, 1)]++	/* sendWaiting */
		:: true
		fi;
#endif
		using[n] = e
	:: else
	fi
}

/* agreed: the connection before is closed, so the peer looks for keys if it has others. */
inline agreed(n) { wants[n] = false }

/* The engine of a node: dials, answers, and ends what is old. */
proctype Node(byte n) {
	byte i, oldest, count;	/* of begin */
	end:
	do
	/* dialSoon: for the first packet, for a lost connection, and for a rekey. */
	:: atomic { !gone[n] && dial[n] == NONE && ans[n] == NONE && next < EPOCHS && (using[n] == NONE || wants[n]) &&
		    !(refused[n] && dial[1-n] != NONE) ->	/* mayRetry: when the other dial has ended, or is refused no more */
		refused[n] = false;
		dial[n] = next; dialer[next] = n; next++;
		begin(n, dial[n])
#ifdef DEFECT_3		/* the dialer seals before it has the acceptor's hello */
		; use(n, dial[n])
#endif
	   }
	:: atomic { rekeys > 0 && !wants[n] && using[n] != NONE && dial[n] == NONE -> rekeys--; wants[n] = true }

	/* acceptOne: the peer's connection is there. */
	:: atomic { !gone[n] && dial[1-n] != NONE && ans[n] == NONE && !BIT(dead, dial[1-n]) && !BIT(live[n], dial[1-n]) &&
		    !BIT(hello, dial[1-n]) && !BIT(could[n], dial[1-n]) ->
		if
		:: dial[n] != NONE && n == 0 -> ADD(dead, dial[1-n]); refused[1-n] = true	/* dialWins: busy */
		:: dial[n] != NONE && n == 0 && aged > 0 -> aged--; stopDial(n); ans[n] = dial[1-n]; begun[n] = false
		:: !(dial[n] != NONE && n == 0) -> stopDial(n); ans[n] = dial[1-n]; begun[n] = false
		fi
	   }
	/* answer: begin and Expect, then the hello. */
	:: atomic { ans[n] != NONE && !begun[n] && !BIT(dead, ans[n]) ->
		if
#ifdef DEFECT_5		/* Begin doesn't look whether the peer is gone */
		:: true ->
#else
		:: !gone[n] ->
#endif
			begin(n, ans[n]); begun[n] = true;
#ifndef DEFECT_6	/* the acceptor says hello before it opens anything */
			expect(n, ans[n]);
#endif
			ADD(hello, ans[n])
#ifndef DEFECT_5
		:: else -> ADD(dead, ans[n]); ans[n] = NONE
#endif
		fi
	   }
	/* offer: the hello has come. */
	:: atomic { dial[n] != NONE && BIT(hello, dial[n]) && !BIT(dead, dial[n]) -> expect(n, dial[n]); use(n, dial[n]); ADD(eof, dial[n]); dial[n] = NONE; agreed(n) }
	/* answer: the stream has ended. */
#ifdef DEFECT_7		/* the acceptor doesn't wait for the dialer to have the keys */
	:: atomic { ans[n] != NONE && begun[n] -> use(n, ans[n]); ans[n] = NONE; agreed(n) }
#else
	:: atomic { ans[n] != NONE && begun[n] && BIT(eof, ans[n]) && !BIT(dead, ans[n]) -> use(n, ans[n]); ans[n] = NONE; agreed(n) }
#endif
	/* Either end notices that a connection is gone. */
	:: atomic { dial[n] != NONE && BIT(dead, dial[n]) -> stopDial(n) }
	:: atomic { ans[n] != NONE && BIT(dead, ans[n]) -> ans[n] = NONE }
	/* attend: what is sealed with was agreed over a connection that is dead, or was replaced by the peer. */
#ifndef DEFECT_8	/* nothing looks after a connection that was lost */
	:: atomic { using[n] != NONE && !wants[n] && (BIT(dead, using[n]) || using[1-n] != using[n]) &&
		    dial[1-n] == NONE && ans[1-n] == NONE && dial[n] == NONE && ans[n] == NONE -> wants[n] = true }
#endif
	/* endOld: what is neither sealed with nor under way. */
	:: atomic { (live[n] & ~(SET(using[n]) | SET(dial[n]) | SET(ans[n]))) != 0 ->
		i = 0;
		do
		:: i < EPOCHS && BIT(live[n], i) && i != using[n] && i != dial[n] && i != ans[n] -> endEpoch(n, i); i = 0; break
		:: else -> i++
		od }
	od
}

/* A lane seals with what it finds, in two steps: the lane alone counts. */
proctype Lane(byte n; byte lane) {
	byte e = NONE;
	end:
	do
	:: atomic { seals > 0 && using[n] != NONE && counter[KEY(n, using[n], lane)] < COUNTERS - 1 -> e = using[n]; seals-- };
	   atomic {
		if
		:: BIT(live[n], e) -> seal(n, e, lane)	/* else the ciphers are wiped */
		:: else -> e = NONE
		fi }
	   atomic {
		if :: e != NONE -> counter[KEY(n, e, lane)]++ :: else fi;
		e = NONE }
	od
}

/* Links break, nodes crash, lists change, and datagrams come in any order, once or often. */
proctype World() {
	byte n, e, lane, c;
	end:
	do
	:: atomic { losses > 0 -> select(e : 0 .. EPOCHS - 1);
		losses--;
		if :: e < next && !BIT(dead, e) -> ADD(dead, e) :: else fi; e = 0 }
	:: atomic { crashes > 0 -> crashes--; select(n : 0 .. 1);
		stopDial(n);
		if :: ans[n] != NONE -> ADD(dead, ans[n]); ans[n] = NONE :: else fi;
		if :: using[n] != NONE -> ADD(dead, using[n]) :: else fi;
		live[n] = 0; open[n] = 0; using[n] = NONE; wants[n] = false; refused[n] = false;
#ifndef DEFECT_9	/* keys outlive the process, and counters don't */
		fresh[n] = 0;
#else
		e = 0;
		do
		:: e < EPOCHS -> counter[KEY(n, e, 0)] = 0; if :: BIT(used[n], e) && BIT(could[1-n], e) -> ADD(live[n], e); ADD(open[n], e); using[n] = e :: else fi; e++
		:: else -> break
		od;
#endif
		n = 0; e = 0 }
	:: atomic { cuts > 0 -> cuts--; gone[0] = true; stopDial(0);
#ifndef DEFECT_10	/* the cut-off leaves epochs */
		live[0] = 0; open[0] = 0; using[0] = NONE;
#endif
		cut = true }
#if DELIVERIES
	:: atomic { deliveries > 0 -> deliveries--;
		select(n : 0 .. 1); select(e : 0 .. EPOCHS - 1); select(lane : 0 .. LANES - 1); select(c : 0 .. COUNTERS - 1);
		if
		:: BIT(sent[SENT(n, e, lane)], c) && BIT(open[1-n], e) && !BIT(window(n, e, lane), c) ->
			assert(!(1-n == 0 && cut));			/* nothing is delivered after the cut-off */
			assert(!BIT(handed[KEY(n, e, lane)], c));	/* nor twice */
			assert(BIT(used[n], e));			/* nor what the peer has not sealed */
			assert(BIT(live[1-n], e));			/* nor when the epoch has ended */
			ADD(seen[KEY(n, e, lane)], c); ADD(handed[KEY(n, e, lane)], c)
		:: else
		fi;
		n = 0; e = 0; lane = 0; c = 0 }
#endif
	od
}

#define opens(n) (using[n] != NONE && BIT(open[1-n], using[n]))
#define settled (cut || (opens(0) && opens(1)))

/* Nothing is left to be done, and nothing more can go wrong. */
active proctype Quiescent() {
	end: timeout ->
#ifndef FEW		/* there may be too few epochs for that */
	assert(settled)
#endif
}

/* Progress: not always once more unsettled, that is, <>[] settled. */
#ifdef PROGRESS
never {
again:
	if
	:: !settled -> goto accept
	:: true -> goto again
	fi;
accept:
	if
	:: true -> goto again
	fi
}
#endif

init {
	atomic {
		run Node(0); run Node(1); run World();
#if SEALS
		run Lane(0, 0); run Lane(1, 0);
#ifdef DEFECT_12	/* two lanes have one key */
		run Lane(0, 0);
#endif
#endif
	}
}
