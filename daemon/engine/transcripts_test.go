package engine_test

const transcripts = `# a first start
first 1 2 3          -> [2 3] not ready: weftd is starting
apply                -> news true, fenced false
applied              -> [2 3] not ready: weftd is starting
conflist             -> publish up, [2 3] ready

# a first start without this node in the list
first 2 3            -> error: nodes: this node, "node1", is not in the list of nodes, which ...

# a first start with a list that this node refuses
first 2 1cidr2       -> error: this node is refused: node1: pod CIDR 10.244.2.0/24 overlaps 1...

# a host that is not in order yet
first 1 2            -> [2] not ready: weftd is starting
apply                -> news true, fenced false
fails no rights      -> [2] not ready: no rights
later 10s            -> [2] not ready: no rights
apply                -> news false, fenced false
applied              -> [2] not ready: weftd is starting
conflist             -> publish up, [2] ready

# a conflist that can't be written
first 1 2            -> [2] not ready: weftd is starting
apply                -> news true, fenced false
applied              -> [2] not ready: weftd is starting
conflist read-only   -> [2] not ready: read-only
apply                -> news false, fenced false
applied              -> [2] not ready: read-only
conflist             -> publish up, [2] ready

# the host is looked at again and again
up 1 2               -> publish up, [2] ready
done                 -> publish up, [2] ready
done                 -> publish up, [2] ready

# why the start is delayed
waits port is taken  -> [] not ready: port is taken
up 1 2               -> publish up, [2] ready

# a node joins
up 1 2               -> publish up, [2] ready
list 1 2 3           -> info node list applied, note peer added, apply, [2 3] ready
done                 -> publish up, [2 3] ready

# a node leaves
up 1 2 3 4           -> publish up, [2 3 4] ready
list 1 2 3           -> info node list applied, note peer removed, apply, [2 3] ready
done                 -> publish up, [2 3] ready

# the same list again
up 1 2               -> publish up, [2] ready
list 1 2             -> [2] ready

# a list in another order
up 1 2 3             -> publish up, [2 3] ready
list 3 1 2           -> [2 3] ready

# a list that shrinks to nothing
up 1 2 3 4           -> publish up, [2 3 4] ready
list 1               -> error node list rejected, [2 3 4] ready
confirm              -> warn node list confirmed, note peer removed, note peer removed, note peer removed, apply, [] ready
done                 -> publish up, [] ready

# a list that shrinks to nothing, and comes back
up 1 2 3 4           -> publish up, [2 3 4] ready
list 1               -> error node list rejected, [2 3 4] ready
list 1 2 3 4         -> info node list accepted again, [2 3 4] ready

# a list that shrinks to nothing while a node joins
up 1 2 3 4           -> publish up, [2 3 4] ready
list 1 5             -> error node list rejected, info node list applied, note peer added, apply, [2 3 4 5] ready
done                 -> publish up, [2 3 4 5] ready
confirm              -> warn node list confirmed, note peer removed, note peer removed, note peer removed, apply, [5] ready

# a list that shrinks bit by bit
up 1 2 3 4 5         -> publish up, [2 3 4 5] ready
list 1 2 3 4         -> info node list applied, note peer removed, apply, [2 3 4] ready
list 1 2 3           -> info node list applied, note peer removed, apply, [2 3] ready
list 1 2             -> error node list rejected, [2 3] ready

# a list that shrinks slowly
up 1 2 3 4 5         -> publish up, [2 3 4 5] ready
list 1 2 3 4         -> info node list applied, note peer removed, apply, [2 3 4] ready
later 2m             -> [2 3 4] ready
list 1 2 3           -> info node list applied, note peer removed, apply, [2 3] ready
later 2m             -> [2 3] ready
list 1 2             -> info node list applied, note peer removed, apply, [2] ready

# nothing to confirm
first 1 2            -> [2] not ready: weftd is starting
confirm              -> error: nothing to confirm: no peers are kept, and no key has changed

# a list without this node
up 1 2               -> publish up, [2] ready
list 2               -> error node list rejected, [2] ready
list 1 2             -> info node list accepted again, [2] ready

# a list without this node, and another outage
up 1 2               -> publish up, [2] ready
list 2               -> error node list rejected, [2] ready
outage etcd          -> error node list rejected, [2] ready
outage etcd          -> [2] ready
list 1 2             -> info node list accepted again, [2] ready

# an outage of the control source
up 1 2               -> publish up, [2] ready
outage etcd          -> error node list rejected, [2] ready
list 1 2             -> info node list accepted again, [2] ready

# an outage in which nodes join
up 1 2               -> publish up, [2] ready
outage etcd          -> error node list rejected, [2] ready
list 1 2 3           -> info node list applied, note peer added, apply, [2 3] ready
done                 -> publish up, [2 3] ready

# a node that claims another one's pod CIDR
up 1 2               -> publish up, [2] ready
list 1 2 3cidr2      -> warn nodes in list rejected, [2] ready
list 1 2 3           -> info node list applied, note peer added, apply, [2 3] ready

# a list that shrinks while the source is away afterwards
up 1 2 3 4           -> publish up, [2 3 4] ready
list 1               -> error node list rejected, [2 3 4] ready
outage etcd          -> error node list rejected, [2 3 4] ready
list 1 2 3 4         -> info node list accepted again, [2 3 4] ready

# another pod CIDR of this node
up 1 2               -> publish up, [2] ready
list 1cidr9 2        -> warn this node's pod CIDRs changed, info node list applied, apply, [2] ready
done                 -> publish up, [2] ready

# a pod CIDR lost, and won back
up 1 2               -> publish up, [2] ready
lost node3 has it    -> withdraw, error node list rejected, apply, [2] not ready: no pod CIDR: node3 has it
done                 -> [2] not ready: no pod CIDR: node3 has it
list 1 2             -> info node list accepted again, apply, [2] not ready: the new pod CIDR is not in use yet
done                 -> publish up, [2] ready

# a pod CIDR lost, and another one claimed
up 1 2               -> publish up, [2] ready
lost node3 has it    -> withdraw, error node list rejected, apply, [2] not ready: no pod CIDR: node3 has it
done                 -> [2] not ready: no pod CIDR: node3 has it
list 1cidr9 2        -> warn this node's pod CIDRs changed, info node list applied, apply, [2] not ready: the new pod CIDR is not in use yet
apply                -> news true, fenced false
fails busy           -> [2] not ready: busy
later 10s            -> [2] not ready: busy
done                 -> publish up, [2] ready

# a pod CIDR lost twice
up 1 2               -> publish up, [2] ready
lost node3 has it    -> withdraw, error node list rejected, apply, [2] not ready: no pod CIDR: node3 has it
lost node3 has it    -> withdraw, [2] not ready: no pod CIDR: node3 has it
done                 -> [2] not ready: no pod CIDR: node3 has it

# a pod CIDR lost while the host is changed
up 1 2               -> publish up, [2] ready
apply                -> news false, fenced false
lost node3 has it    -> withdraw, error node list rejected, apply, [2] not ready: no pod CIDR: node3 has it
applied              -> [2] not ready: no pod CIDR: node3 has it
done                 -> [2] not ready: no pod CIDR: node3 has it

# a pod CIDR won back while the host is changed
up 1 2               -> publish up, [2] ready
lost node3 has it    -> withdraw, error node list rejected, apply, [2] not ready: no pod CIDR: node3 has it
apply                -> news false, fenced true
list 1 2             -> info node list accepted again, apply, [2] not ready: the new pod CIDR is not in use yet
applied              -> [2] not ready: the new pod CIDR is not in use yet
done                 -> publish up, [2] ready

# no snapshot while a pod CIDR is lost
first 1 2            -> [2] not ready: weftd is starting
save                 -> snapshot true
lost node3 has it    -> withdraw, error node list rejected, apply, [2] not ready: no pod CIDR: node3 has it
save                 -> snapshot false
list 1 2             -> info node list accepted again, apply, [2] not ready: the new pod CIDR is not in use yet
save                 -> snapshot false
done                 -> [2] not ready: weftd is starting
save                 -> snapshot true

# a peer roams
up 1 2 3             -> publish up, [2 3] ready
roams 2 9            -> info peer roamed, apply, [2@9 3] ready
done                 -> publish up, [2@9 3] ready

# a peer roams, and comes back
up 1 2 3             -> publish up, [2 3] ready
roams 2 9            -> info peer roamed, apply, [2@9 3] ready
roams 2 2            -> info peer roamed, apply, [2 3] ready

# a peer roams, and is listed where it is
up 1 2 3             -> publish up, [2 3] ready
roams 2 9            -> info peer roamed, apply, [2@9 3] ready
list 1 2at9 3        -> info node list applied, apply, [2 3] ready

# a peer roams, and is listed elsewhere
up 1 2 3             -> publish up, [2 3] ready
roams 2 9            -> info peer roamed, apply, [2@9 3] ready
list 1 2at8 3        -> info node list applied, apply, [2 3] ready

# a peer roams while others change
up 1 2 3             -> publish up, [2 3] ready
roams 2 9            -> info peer roamed, apply, [2@9 3] ready
list 1 2 3 4         -> info node list applied, note peer added, apply, [2@9 3 4] ready

# a peer roams to another's address
up 1 2 3             -> publish up, [2 3] ready
roams 2 3            -> info peer roamed, warn peer roamed to taken address, apply, [2 3] ready

# a peer that roams leaves
up 1 2 3 4           -> publish up, [2 3 4] ready
roams 2 9            -> info peer roamed, apply, [2@9 3 4] ready
list 1 3 4           -> info node list applied, note peer removed, apply, [3 4] ready
list 1 2 3 4         -> info node list applied, note peer added, apply, [2 3 4] ready

# a peer roams, and another weftd goes on
up 1 2 3             -> publish up, [2 3] ready
roams 2 9            -> info peer roamed, apply, [2@9 3] ready
successor 1 2 3 4    -> [2@9 3 4] not ready: weftd is starting
list 1 2at8 3        -> info node list applied, note peer removed, apply, [2 3] not ready: weftd is starting

# a peer roams, and another weftd knows it elsewhere
up 1 2 3             -> publish up, [2 3] ready
roams 2 9            -> info peer roamed, apply, [2@9 3] ready
successor 1 2at8 3   -> [2 3] not ready: weftd is starting

# a further address is proven
up 1 2also2 3        -> publish up, [2 3] ready
proven 2             -> apply, [2+2 3] ready
done                 -> publish up, [2+2 3] ready
proven               -> apply, [2 3] ready

# an address that nobody claims is proven
up 1 2 3             -> publish up, [2 3] ready
proven 2             -> apply, [2 3] ready

# a claim ends
up 1 2also2 3        -> publish up, [2 3] ready
proven 2             -> apply, [2+2 3] ready
list 1 2 3           -> info node list applied, apply, [2 3] ready

# a proven address outlives a roam
up 1 2also2 3        -> publish up, [2 3] ready
proven 2             -> apply, [2+2 3] ready
roams 2 9            -> info peer roamed, apply, [2@9+2 3] ready
list 1 2also2 3 4    -> info node list applied, note peer added, apply, [2@9+2 3 4] ready

# the host fails twice
up 1 2               -> publish up, [2] ready
apply                -> news false, fenced false
fails no memory      -> [2] not ready: no memory
later 10s            -> [2] not ready: no memory
apply                -> news false, fenced false
fails no memory      -> [2] not ready: no memory
later 10s            -> [2] not ready: no memory
done                 -> publish up, [2] ready

# the host fails for longer than a restart takes
up 1 2               -> publish up, [2] ready
apply                -> news false, fenced false
fails no memory      -> [2] not ready: no memory
later 31s            -> [2] not ready: no memory
apply                -> news false, fenced false
fails no memory      -> publish down, [2] not ready: no memory
later 10s            -> [2] not ready: no memory
done                 -> publish up, [2] ready

# the host fails before weftd was ever ready
first 1 2            -> [2] not ready: weftd is starting
apply                -> news true, fenced false
fails no memory      -> [2] not ready: no memory
later 5m             -> [2] not ready: no memory
apply                -> news false, fenced false
fails no memory      -> [2] not ready: no memory

# a list comes while the host is changed
first 1 2            -> [2] not ready: weftd is starting
apply                -> news true, fenced false
list 1 2 3           -> info node list applied, note peer added, apply, [2 3] not ready: weftd is starting
applied              -> [2 3] not ready: weftd is starting
done                 -> [2 3] not ready: weftd is starting

# a key changes
up 1 2 3             -> publish up, [2 3] ready
list 1 2key9 3       -> warn node key changed, info node list applied, apply, [2 3] ready
confirm              -> warn node list confirmed, apply, [2 3] ready

# a key changes (keys held)
up 1 2 3             -> publish up, [2 3] ready
list 1 2key9 3       -> warn node key changed, [2 3] ready
confirm              -> warn node list confirmed, apply, [2 3] ready
done                 -> publish up, [2 3] ready

# a key changes back (keys held)
up 1 2 3             -> publish up, [2 3] ready
list 1 2key9 3       -> warn node key changed, [2 3] ready
list 1 2 3           -> [2 3] ready

# a restart from a snapshot
up 1 2 3             -> publish up, [2 3] ready
list 1 2 3 4         -> info node list applied, note peer added, apply, [2 3 4] ready
restart 1            -> [2 3 4] not ready: weftd is starting
apply                -> news true, fenced false
applied              -> [2 3 4] not ready: weftd is starting
conflist             -> publish up, [2 3 4] ready

# a restart with other pod CIDRs than pods have
up 1cidr9 2          -> publish up, [2] ready
restart 1            -> warn this node's pod CIDRs changed, [2] not ready: weftd is starting

# a restart while peers are kept
up 1 2 3 4           -> publish up, [2 3 4] ready
list 1               -> error node list rejected, [2 3 4] ready
restart 1            -> [2 3 4] not ready: weftd is starting
list 1               -> error node list rejected, [2 3 4] not ready: weftd is starting
`
