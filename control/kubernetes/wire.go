package kubernetes

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Kubelets write ten thousand bytes and more into a Node, such as the names of all images,
// and write it again every five minutes; a few hundred of these bytes matter here. The
// others are skipped before anything is decoded, and of a list one Node at a time is read.

// fields are those that are kept of a protobuf message: whole ones, which are nil, and some
// of a message within. For the numbers see k8s.io/api/core/v1/generated.proto, and for those
// of the metadata k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
type fields map[protowire.Number]fields

var nodeFields = fields{
	1: { // metadata
		1:  nil, // name
		6:  nil, // resourceVersion
		8:  nil, // creationTimestamp
		12: nil, // annotations
	},
	2: { // spec
		7: nil, // podCIDRs
	},
	3: { // status
		4: nil, // conditions
		5: nil, // addresses
	},
}

// appendKept appends to b the fields of a message that are kept.
func (f fields) appendKept(b, message []byte) ([]byte, error) {
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeField(message)
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		field := message[:size]
		message = message[size:]
		inner, kept := f[number]
		if !kept {
			continue
		}
		if inner == nil {
			b = append(b, field...)
			continue
		}
		if kind != protowire.BytesType {
			return nil, fmt.Errorf("field %d is no message", number)
		}
		_, _, tag := protowire.ConsumeTag(field)
		value, _ := protowire.ConsumeBytes(field[tag:])
		little, err := inner.appendKept(nil, value)
		if err != nil {
			return nil, err
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, number, kind), little)
	}
	return b, nil
}

// littleNode is a Node that is decoded only so far as it matters here.
type littleNode struct{ core.Node }

// Unmarshal decodes a Node, of which it keeps nodeFields.
func (n *littleNode) Unmarshal(message []byte) error {
	kept, err := nodeFields.appendKept(nil, message)
	if err != nil {
		return fmt.Errorf("a Node: %w", err)
	}
	return n.Node.Unmarshal(kept)
}

// DeepCopyObject implements runtime.Object.
func (n *littleNode) DeepCopyObject() runtime.Object { return &littleNode{*n.DeepCopy()} }

// A list, as an API server answers, is
//
//	"k8s" 0 Unknown{typeMeta = 1, raw = 2: NodeList{metadata = 1, items = 2}, ...}
//
// See k8s.io/apimachinery/pkg/runtime/serializer/protobuf and pkg/runtime/generated.proto.
const (
	listMagic = "k8s\x00"

	unknownRaw   = 2
	listMetadata = 1
	listItems    = 2

	// maxNode is more bytes than an API server stores of any object.
	maxNode = 16 << 20
)

// readList reads a list of Nodes.
func readList(stream io.Reader) (*core.NodeList, error) {
	r := bufio.NewReader(stream)
	if magic, _ := r.Peek(len(listMagic)); string(magic) != listMagic {
		return nil, fmt.Errorf("the list begins with %q, and not like Kubernetes' protobuf", magic)
	}
	_, _ = r.Discard(len(listMagic)) // it was seen
	var list *core.NodeList
	err := eachField(r, func(number protowire.Number, value *io.LimitedReader) error {
		if number != unknownRaw {
			return nil
		}
		list = new(core.NodeList)
		return readItems(list, value)
	})
	if err == nil && list == nil {
		err = io.ErrUnexpectedEOF // no list must not pass for an empty one
	}
	if err != nil {
		return nil, fmt.Errorf("a list of Nodes: %w", err)
	}
	return list, nil
}

func readItems(list *core.NodeList, r io.Reader) error {
	var message []byte // of one item after the other
	return eachField(bufio.NewReader(r), func(number protowire.Number, value *io.LimitedReader) error {
		if number != listMetadata && number != listItems {
			return nil
		}
		if value.N > maxNode {
			return fmt.Errorf("an object of %d bytes", value.N)
		}
		message = slices.Grow(message[:0], int(value.N))[:value.N]
		if _, err := io.ReadFull(value, message); err != nil {
			return err
		}
		if number == listMetadata {
			return list.ListMeta.Unmarshal(message)
		}
		var n littleNode
		if err := n.Unmarshal(message); err != nil {
			return err
		}
		list.Items = append(list.Items, n.Node)
		return nil
	})
}

// eachField hands the value of each field of the message that r is to a function, which
// needn't read it to its end. All fields must have a length.
func eachField(r *bufio.Reader, each func(number protowire.Number, value *io.LimitedReader) error) error {
	for {
		tag, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		number, kind := protowire.DecodeTag(tag)
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
		value := &io.LimitedReader{R: r, N: int64(size)}
		if kind != protowire.BytesType || value.N < 0 {
			return fmt.Errorf("field %d has no length", number)
		}
		if err := each(number, value); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, value); err != nil {
			return err
		}
		if value.N > 0 {
			return io.ErrUnexpectedEOF
		}
	}
}
