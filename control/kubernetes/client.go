package kubernetes

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"weft/internal/version"
)

// connection is how a Source reaches an API server.
type connection struct {
	kubeconfig string
	api        nodeAPI

	// identity is the cluster's. Credentials are those that were read last, hashed.
	identity, credentials string
}

// connect returns the way to the API server of a kubeconfig, or of the pod's service account.
// Token files are read again by client-go, about once a minute.
func connect(kubeconfig string) (*connection, error) {
	config, err := clientConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	if err := checkServer(kubeconfig, config); err != nil {
		return nil, err
	}
	c := &connection{kubeconfig: kubeconfig, credentials: credentials(config)}
	if c.identity, err = identify(config); err != nil {
		return nil, err
	}
	config.UserAgent = "weft/" + version.Version
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	config.WarningHandler = rest.NoWarnings{}
	// One node asks for one list and one watch, and writes now and then.
	config.QPS, config.Burst = 5, 10
	// No Timeout, which would end every watch.
	config.Dial = dialer().DialContext
	c.api, err = newAPI(config)
	return c, err
}

// renew reads the kubeconfig and the token's file again: an administrator, or kubelet, may have
// written another token since. What can't be used, or is of another cluster, changes nothing.
func (c *connection) renew() (nodeAPI, bool) {
	config, err := clientConfig(c.kubeconfig)
	if err != nil || credentials(config) == c.credentials {
		return nil, false
	}
	now, err := connect(c.kubeconfig)
	if err != nil || now.identity != c.identity {
		return nil, false
	}
	*c = *now
	return c.api, true
}

// credentials returns a hash of what a client shows to the API server.
func credentials(config *rest.Config) string {
	h := sha256.New()
	for _, secret := range [][]byte{[]byte(config.BearerToken), config.CertData, config.KeyData} {
		fmt.Fprintf(h, "%d %s", len(secret), secret)
	}
	for _, path := range []string{config.BearerTokenFile, config.CertFile, config.KeyFile} {
		text, err := os.ReadFile(path) // none, if there is no path
		fmt.Fprintf(h, "%d %s %v", len(text), text, err)
	}
	return string(h.Sum(nil))
}

// dialer notices within 5 seconds that the API server does not answer, and that a connection is
// dead: a watch on one that came through an outage would be silent for as long as the outage was.
func dialer() *net.Dialer {
	const limit = 5 * time.Second
	return &net.Dialer{
		Timeout:         3 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3},
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			// What was sent and is not acknowledged keeps the probes of keep-alive waiting.
			set := func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
			}
			if failed := c.Control(set); failed != nil {
				return failed
			}
			return err
		},
	}
}

// identify returns the identity of the cluster. Its CA is made with it, and stays when the API
// server gets another address. Where there is none, the address must do.
func identify(config *rest.Config) (string, error) {
	ca := config.CAData
	if len(ca) == 0 && config.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(config.CAFile); err != nil {
			return "", fmt.Errorf("read the API server's CA: %w", err)
		}
	}
	if len(ca) == 0 {
		ca = []byte(config.Host)
	}
	return fmt.Sprintf("%x", sha256.Sum256(ca)), nil
}

func clientConfig(kubeconfig string) (*rest.Config, error) {
	quiet() // before client-go is used at all
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("this process does not run in a pod; write the path of a kubeconfig under the configuration's key control.kubernetes.kubeconfig")
		}
		if err != nil {
			return nil, fmt.Errorf("use the pod's service account: %w", err)
		}
		return config, nil
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", kubeconfig, err)
	}
	return config, nil
}

// quiet has client-go log nothing: it would write past weftd's log, in another form, and as
// often as it likes. What matters comes back as an error.
var quiet = sync.OnceFunc(func() {
	klog.SetLogger(logr.Discard())
	utilruntime.ErrorHandlers = nil
})
