package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	clientgo "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"

	"weft/internal/testnet"
)

// waitLimit bounds a wait whose context has no deadline. It is generous: images are
// unpacked and programs started by two cores that others may use as well.
const waitLimit = 3 * time.Minute

// fieldManager is the owner that the API server notes for what Apply has set.
const fieldManager = "weft-tests"

// Client speaks to a testnet's API server as one of its users.
type Client struct {
	clientgo.Interface
	Dynamic dynamic.Interface
	config  *rest.Config
	server  *testnet.APIServer
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

// Connect returns a client with the credentials of a kubeconfig. It asks for nothing yet.
func Connect(server *testnet.APIServer, kubeconfig string) (*Client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", kubeconfig, err)
	}
	return ConnectWith(server, config)
}

// Admin returns a client that may do everything.
func Admin(server *testnet.APIServer) (*Client, error) {
	kubeconfig, err := server.AdminKubeconfig()
	if err != nil {
		return nil, err
	}
	return Connect(server, kubeconfig)
}

// ConnectWith is Connect with credentials from elsewhere.
func ConnectWith(server *testnet.APIServer, config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	config.Host = server.URL()
	config.Dial = server.Dial
	config.QPS = -1 // no limit
	typed, err := clientgo.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(typed.Discovery()))
	return &Client{Interface: typed, Dynamic: untyped, config: config, server: server, mapper: mapper}, nil
}

// Apply has the API server make what all YAML files of a directory, or one file, say
// (server-side apply), in the order of the files' names. What is namespaced and names no
// namespace goes to default.
func (c *Client) Apply(ctx context.Context, path string) error {
	files := []string{path}
	if info, err := os.Stat(path); err != nil {
		return fmt.Errorf("apply: %w", err)
	} else if info.IsDir() {
		files, _ = filepath.Glob(filepath.Join(path, "*.yaml"))
		files = slices.DeleteFunc(files, func(file string) bool { return filepath.Base(file) == "kustomization.yaml" })
	}
	if len(files) == 0 {
		return fmt.Errorf("apply %s: no YAML files are there", path)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		if err := c.ApplyYAML(ctx, string(content)); err != nil {
			return fmt.Errorf("apply %s: %w", file, err)
		}
	}
	return nil
}

// ApplyYAML is Apply for the content of a file.
func (c *Client) ApplyYAML(ctx context.Context, manifests string) error {
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(object.Object) == 0 {
			continue // nothing but a comment
		}
		if err := c.applyObject(ctx, &object); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

func (c *Client) applyObject(ctx context.Context, object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		// It may have been defined since the mapper asked what there is.
		c.mapper.Reset()
		if mapping, err = c.mapper.RESTMapping(kind.GroupKind(), kind.Version); err != nil {
			return err
		}
	}
	var resource dynamic.ResourceInterface = c.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == "namespace" {
		namespace := object.GetNamespace()
		if namespace == "" {
			namespace = meta.NamespaceDefault
		}
		resource = c.Dynamic.Resource(mapping.Resource).Namespace(namespace)
	}
	options := meta.ApplyOptions{FieldManager: fieldManager, Force: true}
	var refused error
	err = Wait(ctx, "the namespace's service account", func(ctx context.Context) error {
		_, refused = resource.Apply(ctx, object.GetName(), object, options)
		if isTooEarly(refused) {
			return refused
		}
		return nil
	})
	if err != nil {
		return err
	}
	return refused
}

// isTooEarly says whether a pod was refused because the controller manager has not yet
// made the service account of its new namespace.
func isTooEarly(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "error looking up service account")
}

// ServiceAccountToken returns a token that is valid for an hour. The account must exist.
// APIServer.TokenKubeconfig makes a kubeconfig of it.
func (c *Client) ServiceAccountToken(ctx context.Context, namespace, account string) (string, error) {
	return c.token(ctx, namespace, account, authentication.TokenRequestSpec{})
}

// NodeToken returns a token of a service account that is bound to a node, as the token of
// a pod there is: authorization and admission see the node's name in it, and it ends with
// the node.
func (c *Client) NodeToken(ctx context.Context, namespace, account, node string) (string, error) {
	n, err := c.CoreV1().Nodes().Get(ctx, node, meta.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("make a token for %s/%s on %s: %w", namespace, account, node, err)
	}
	return c.token(ctx, namespace, account, authentication.TokenRequestSpec{
		BoundObjectRef: &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID},
	})
}

func (c *Client) token(ctx context.Context, namespace, account string, spec authentication.TokenRequestSpec) (string, error) {
	request := &authentication.TokenRequest{Spec: spec}
	made, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, meta.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("make a token for %s/%s: %w", namespace, account, err)
	}
	return made.Status.Token, nil
}

// Wait is testnet's, with a limit that suits Kubernetes: 3 minutes.
func Wait(ctx context.Context, what string, cond func(context.Context) error) error {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, waitLimit)
		defer cancel()
	}
	return testnet.Wait(ctx, what, cond)
}

// WaitNode returns the node as soon as cond returns nil for it.
func (c *Client) WaitNode(ctx context.Context, name string, cond func(*core.Node) error) (node *core.Node, err error) {
	err = Wait(ctx, "node "+name, func(ctx context.Context) (err error) {
		if node, err = c.CoreV1().Nodes().Get(ctx, name, meta.GetOptions{}); err != nil {
			return err
		}
		return cond(node)
	})
	return node, err
}

// NodeReady is a condition for WaitNode.
func NodeReady(node *core.Node) error {
	for _, c := range node.Status.Conditions {
		if c.Type == core.NodeReady && c.Status == core.ConditionTrue {
			return nil
		} else if c.Type == core.NodeReady {
			return fmt.Errorf("it is not ready: %s: %s", c.Reason, c.Message)
		}
	}
	return errors.New("it does not say whether it is ready")
}

// WaitPod returns the pod as soon as cond returns nil for it.
func (c *Client) WaitPod(ctx context.Context, namespace, name string, cond func(*core.Pod) error) (pod *core.Pod, err error) {
	err = Wait(ctx, "pod "+name, func(ctx context.Context) (err error) {
		if pod, err = c.CoreV1().Pods(namespace).Get(ctx, name, meta.GetOptions{}); err != nil {
			return err
		}
		return cond(pod)
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, c.events(ctx, namespace, name))
	}
	return pod, nil
}

// PodReady is a condition for WaitPod.
func PodReady(pod *core.Pod) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == core.PodReady && c.Status == core.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("it is %s and not ready", pod.Status.Phase)
}

// events returns what Kubernetes noted about an object, for an error message.
func (c *Client) events(ctx context.Context, namespace, name string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	list, err := c.CoreV1().Events(namespace).List(ctx, meta.ListOptions{FieldSelector: "involvedObject.name=" + name})
	if err != nil {
		return err.Error()
	}
	var text strings.Builder
	fmt.Fprintf(&text, "--- the events of %s\n", name)
	for _, e := range list.Items {
		fmt.Fprintf(&text, "%s: %s\n", e.Reason, e.Message)
	}
	return text.String() + "---"
}

// Exec runs a program in the first container of a pod and returns its standard output.
// The error carries what it wrote to standard error.
func (c *Client) Exec(ctx context.Context, namespace, pod string, command ...string) (string, error) {
	request := c.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&core.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewSPDYExecutor(c.config, "POST", request.URL())
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	// The executor does not ask config.Dial, but it connects from its caller's thread.
	err = c.server.Do(func() error {
		return executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
	})
	if err != nil {
		err = fmt.Errorf("in pod %s: %s: %w: %s", pod, strings.Join(command, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), err
}
