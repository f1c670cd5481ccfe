// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	podNetwork     = "10.244.0.0/24"
	serviceNetwork = "10.96.0.0/24"
	firstService   = "10.96.0.1" // the service of the API server
	nodeName       = "node1"

	// pluginDirectory is Debian's directory of network plugins.
	pluginDirectory = "/usr/lib/cni"

	// patience is the deadline of operations that take seconds on an idle machine.
	patience = 2 * time.Minute
	// interval is the time between two checks of a condition.
	interval = 100 * time.Millisecond
)

// A Cluster is a running Kubernetes cluster of one node.
type Cluster struct {
	programs string // directory of all programs, such as kubectl and helm
	logs     string
	client   *http.Client
	token    string
}

// Start runs a cluster with the programs in a directory and the images in its subdirectory images. The cluster ends with the
// namespaces that [Isolated] created. Logs of its parts are written to a directory. The variable PATH of this process then begins
// with the directory of the programs.
func Start(ctx context.Context, programs, logs string) (*Cluster, error) {
	c := &Cluster{programs: programs, logs: logs, token: rand.Text()}
	path := programs + ":/usr/sbin:/sbin:" + os.Getenv("PATH")
	if err := errors.Join(os.MkdirAll(logs, 0o755), os.Setenv("PATH", path)); err != nil {
		return nil, err
	}
	if err := c.identities(); err != nil {
		return nil, err
	}
	node := make(chan error, 1)
	go func() { node <- c.containers(ctx) }() // in parallel
	if err := c.controlPlane(ctx); err != nil {
		return nil, err
	}
	if err := <-node; err != nil {
		return nil, err
	}
	if err := c.node(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// identities creates the CA, the certificates, the tokens and the kubeconfigs of all parts.
func (c *Cluster) identities() error {
	authority, err := NewAuthority("kubernetes")
	if err != nil {
		return err
	}
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}}
	files := map[string][]byte{"ca.crt": authority.PEM()}
	for name, subject := range map[string]pkix.Name{
		"apiserver":       {CommonName: "kube-apiserver"},
		"kubelet-client":  {CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
		"service-account": {CommonName: "service-account"},
	} {
		pair, err := authority.Issue(subject, "127.0.0.1", nodeAddress, firstService, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
		if err != nil {
			return err
		}
		files[name+".crt"], files[name+".key"] = pair.Certificate, pair.Key
	}
	var tokens strings.Builder
	for user, groups := range map[string]string{
		"admin":                          "system:masters",
		"system:kube-controller-manager": "",
		"system:kube-scheduler":          "",
		"system:node:" + nodeName:        "system:nodes",
		"system:kube-proxy":              "",
	} {
		token := rand.Text()
		if user == "admin" {
			token = c.token
		}
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", token, user, user, groups)
		name := user[strings.LastIndexByte(user, ':')+1:]
		files[name+".kubeconfig"] = c.kubeconfig(token, "default")
	}
	files["tokens.csv"] = []byte(tokens.String())
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(state, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

const server = "https://127.0.0.1:6443"

// kubeconfig returns the configuration of a client with a token and a namespace, as JSON, which is valid YAML.
func (c *Cluster) kubeconfig(token, namespace string) []byte {
	return fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "it",
"clusters": [{"name": "it", "cluster": {"server": %q, "certificate-authority": %q}}],
"users": [{"name": "it", "user": {"token": %q}}],
"contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": %q}}]}
`, server, filepath.Join(state, "ca.crt"), token, namespace)
}

// run starts a part of the cluster in the background and logs to a file. $STATE is replaced by the directory of all files.
func (c *Cluster) run(name string, arguments ...string) (ended <-chan error, err error) {
	log, err := os.Create(filepath.Join(c.logs, name+".log"))
	if err != nil {
		return nil, err
	}
	for i := range arguments {
		arguments[i] = strings.ReplaceAll(arguments[i], "$STATE", state)
	}
	command := exec.Command(name, arguments...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // only the tests receive ctrl-C
	if err := command.Start(); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() {
		err := command.Wait()
		log.Close()
		exited <- fmt.Errorf("%s ended, see %s: %w", name, log.Name(), errors.Join(errEnded, err))
	}()
	return exited, nil
}

// errEnded marks the end of a part of the cluster that should run forever.
var errEnded = errors.New("it should not")

// until waits until a condition holds. It fails if a part of the cluster ends, or after patience.
func until(ctx context.Context, what string, ended <-chan error, condition func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, err)
		case <-ticker.C:
		}
	}
}

func (c *Cluster) controlPlane(ctx context.Context) error {
	// The data are not needed after a crash, so etcd need not use fsync.
	if _, err := c.run("etcd", "--data-dir=$STATE/etcd", "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380",
		"--unsafe-no-fsync", "--log-level=warn"); err != nil {
		return err
	}
	ended, err := c.run("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0", "--secure-port=6443",
		"--advertise-address="+nodeAddress, "--service-cluster-ip-range="+serviceNetwork,
		"--tls-cert-file=$STATE/apiserver.crt", "--tls-private-key-file=$STATE/apiserver.key", "--client-ca-file=$STATE/ca.crt",
		"--service-account-key-file=$STATE/service-account.crt", "--service-account-signing-key-file=$STATE/service-account.key",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--token-auth-file=$STATE/tokens.csv",
		"--kubelet-client-certificate=$STATE/kubelet-client.crt", "--kubelet-client-key=$STATE/kubelet-client.key",
		"--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true")
	if err != nil {
		return err
	}
	if err := until(ctx, "the API server", ended, func() error { _, err := c.Raw(ctx, "/readyz"); return err }); err != nil {
		return err
	}
	// The default limit of 20 requests per second would slow down the start of the cluster.
	ended, err = c.run("kube-controller-manager", "--kube-api-qps=300", "--kube-api-burst=600", "--kubeconfig=$STATE/kube-controller-manager.kubeconfig",
		"--authentication-kubeconfig=$STATE/kube-controller-manager.kubeconfig", "--authorization-kubeconfig=$STATE/kube-controller-manager.kubeconfig",
		"--bind-address=127.0.0.1", "--leader-elect=false", "--use-service-account-credentials=true",
		"--service-account-private-key-file=$STATE/service-account.key", "--root-ca-file=$STATE/ca.crt",
		"--flex-volume-plugin-dir=$STATE/volume-plugins")
	if err != nil {
		return err
	}
	if _, err := c.run("kube-scheduler", "--kubeconfig=$STATE/kube-scheduler.kubeconfig", "--authentication-kubeconfig=$STATE/kube-scheduler.kubeconfig",
		"--authorization-kubeconfig=$STATE/kube-scheduler.kubeconfig", "--bind-address=127.0.0.1", "--leader-elect=false"); err != nil {
		return err
	}
	return until(ctx, "the first service account", ended, func() error {
		_, err := c.Raw(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
		return err
	})
}

const containerdConfig = `version = 2
root = "$STATE/containerd/root"
state = "$STATE/containerd/run"
[grpc]
  address = "$STATE/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$STATE/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$STATE/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "` + pluginDirectory + `"
    conf_dir = "$STATE/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
`

const (
	// registryAddress is where a story may run a registry, and registryHost whose place it takes for the node: no other is asked.
	registryAddress = "127.0.0.1:5000"
	registryHost    = "ghcr.io"
	registryConfig  = `server = "http://` + registryAddress + `"
[host."http://` + registryAddress + `"]
  capabilities = ["pull", "resolve"]
`
)

const networkConfig = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{
  "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$STATE/addresses", "ranges": [[{"subnet": "` + podNetwork + `"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
`

// containers starts containerd and imports the images.
func (c *Cluster) containers(ctx context.Context) error {
	if err := errors.Join(
		write("certs.d/"+registryHost+"/hosts.toml", registryConfig),
		write("containerd.toml", containerdConfig),
		write("net.d/pods.conflist", networkConfig),
	); err != nil {
		return err
	}
	ended, err := c.run("containerd", "--config=$STATE/containerd.toml")
	if err != nil {
		return err
	}
	ctr := func(arguments ...string) error {
		output, err := exec.CommandContext(ctx, "ctr", append([]string{"--address=" + state + "/containerd.sock", "--namespace=k8s.io"}, arguments...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ctr %s: %w: %s", strings.Join(arguments, " "), err, output)
		}
		return nil
	}
	if err := until(ctx, "containerd", ended, func() error { return ctr("version") }); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(c.programs, "images", "*.tar"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := ctr("images", "import", archive); err != nil {
			return err
		}
	}
	return nil
}

// kubeletConfig makes kubelet check Secrets and pods more often than every minute, for which most stories would wait.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$STATE/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
enforceNodeAllocatable: []
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/ca.crt}}
authorization: {mode: Webhook}
address: 0.0.0.0
failSwapOn: false
makeIPTablesUtilChains: false
resolvConf: ""
evictionHard: {memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
podLogsDir: $STATE/pod-logs
volumePluginDir: $STATE/volume-plugins
syncFrequency: 2s
nodeStatusUpdateFrequency: 5s
`

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: ` + nodeName + `
clientConnection: {kubeconfig: $STATE/kube-proxy.kubeconfig}
clusterCIDR: ` + podNetwork + `
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
metricsBindAddress: 127.0.0.1:10249
`

// node starts kubelet and kube-proxy, and waits for the node to be ready.
func (c *Cluster) node(ctx context.Context) error {
	config := kubeletConfig
	if cgroupV1() {
		config += "failCgroupV1: false\n"
	}
	if err := errors.Join(write("kubelet.yaml", config), write("proxy.yaml", proxyConfig)); err != nil {
		return err
	}
	ended, err := c.run("kubelet", "--config=$STATE/kubelet.yaml", "--kubeconfig=$STATE/"+nodeName+".kubeconfig", "--hostname-override="+nodeName,
		"--node-ip="+nodeAddress, "--root-dir=$STATE/kubelet", "--cert-dir=$STATE/kubelet-pki", "--v=2")
	if err != nil {
		return err
	}
	if _, err := c.run("kube-proxy", "--config=$STATE/proxy.yaml"); err != nil {
		return err
	}
	return until(ctx, "the node", ended, func() error {
		var node corev1.Node
		if err := c.Get(ctx, "/api/v1/nodes/"+nodeName, &node); err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("it is not ready: %+v", node.Status.Conditions)
	})
}

// write writes a file of the state. It replaces $STATE by the directory of the state, $CGROUP by the control group of all pods.
func write(name, content string) error {
	content = strings.NewReplacer("$STATE", state, "$CGROUP", os.Getenv(cgroupVariable)).Replace(content)
	file := filepath.Join(state, name)
	return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o600))
}

// Raw requests a path from the API server.
func (c *Cluster) Raw(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return nil, err
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s: %s", path, response.Status, body)
	}
	return body, nil
}

// Get decodes the object or list at a path of the API.
func (c *Cluster) Get(ctx context.Context, path string, into any) error {
	body, err := c.Raw(ctx, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// Command returns a command in whose environment kubectl and helm use the cluster and a namespace.
func (c *Cluster) Command(ctx context.Context, namespace, program string, arguments ...string) (*exec.Cmd, error) {
	home := filepath.Join(state, "homes", namespace)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(home, "kubeconfig")
	if err := os.WriteFile(kubeconfig, c.kubeconfig(c.token, namespace), 0o600); err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, program, arguments...)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HOME="+home, "HELM_NAMESPACE="+namespace)
	return command, nil
}
