package kubernetes

import (
	"context"
	"fmt"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// nodeAPI is what the API server is asked about Nodes, as client-go's NodeInterface has it, and
// about their events.
type nodeAPI interface {
	List(context.Context, meta.ListOptions) (*core.NodeList, error)
	Watch(context.Context, meta.ListOptions) (watch.Interface, error)
	Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, o meta.PatchOptions, subresources ...string) (*core.Node, error)

	// CreateEvent takes an event as JSON.
	CreateEvent(ctx context.Context, event []byte) error
}

// restAPI is the nodeAPI of a real API server, which speaks protobuf. client-go's own client
// knows every kind of object that Kubernetes has: nearly 40 MB of program that weftd would
// carry for one of them. This one knows littleNode.
type restAPI struct {
	client rest.Interface
	codec  runtime.ParameterCodec
}

func newAPI(config *rest.Config) (nodeAPI, error) {
	v1 := core.SchemeGroupVersion
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(v1.WithKind("Node"), &littleNode{})
	meta.AddToGroupVersion(scheme, v1)
	config.GroupVersion, config.APIPath = &v1, "/api"
	config.NegotiatedSerializer = rest.CodecFactoryForGeneratedClient(scheme, serializer.NewCodecFactory(scheme)).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("use the kubeconfig: %w", err)
	}
	return restAPI{client, runtime.NewParameterCodec(scheme)}, nil
}

func (a restAPI) List(ctx context.Context, o meta.ListOptions) (*core.NodeList, error) {
	answer, err := a.client.Get().Resource("nodes").VersionedParams(&o, a.codec).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	return readList(answer)
}

func (a restAPI) Watch(ctx context.Context, o meta.ListOptions) (watch.Interface, error) {
	o.Watch = true
	request := a.client.Get().Resource("nodes").VersionedParams(&o, a.codec)
	if o.TimeoutSeconds != nil {
		request = request.Timeout(time.Duration(*o.TimeoutSeconds) * time.Second)
	}
	return request.Watch(ctx)
}

func (a restAPI) Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, o meta.PatchOptions, subresources ...string) (*core.Node, error) {
	var n littleNode
	return &n.Node, a.client.Patch(kind).Resource("nodes").Name(name).SubResource(subresources...).
		VersionedParams(&o, a.codec).Body(patch).Do(ctx).Into(&n)
}

func (a restAPI) CreateEvent(ctx context.Context, event []byte) error {
	return a.client.Post().AbsPath("/apis/events.k8s.io/v1/namespaces", eventNamespace, "events").
		SetHeader("Content-Type", runtime.ContentTypeJSON).Body(event).Do(ctx).Error()
}
