// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a complete Kubernetes cluster on this machine, with the Prometheus Operator and a Prometheus server,
// without a network: API server, controllers, scheduler, kubelet, containerd and pods run in Linux namespaces of their own,
// which end with the program. Its tests, the stories, use the exporter as users do.
package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// stageVariable selects the role of the process. The process that the user called has none; it starts the init process, which
	// starts the test.
	stageVariable = "CLUSTER_STAGE"
	stageInit     = "init"
	stageInside   = "inside"

	// cgroupPrefix is the prefix of the names of the control groups, which are the only visible trace outside the namespaces. The
	// process id of the program follows, so that two runs do not conflict, and groups of a killed run can be recognized.
	cgroupPrefix   = "balena-exporter-e2e-"
	cgroupVariable = "CLUSTER_CGROUP"
	cgroupRoot     = "/sys/fs/cgroup"

	// state is the directory of all files of the cluster. /run is a file system in memory that ends with the namespaces.
	state = "/run/cluster"
)

// nodeAddress is the address of the machine in the cluster. Its interface is not connected to anything; it exists because the
// API server does not accept a loopback address.
const nodeAddress = "10.88.0.1"

// Isolated calls run in network, mount and process namespaces of its own, as a child of their init process, and returns its
// result. If any of the processes ends, all others end too, and with them all mounts and interfaces. The host is not changed.
func Isolated(run func() int) (int, error) {
	switch os.Getenv(stageVariable) {
	case "":
		return outside()
	case stageInit:
		return inner()
	default:
		return run(), nil
	}
}

// outside starts the init process of the namespaces, and removes its control groups afterwards.
func outside() (int, error) {
	if err := Missing(); err != nil {
		return 1, err
	}
	for _, path := range cgroups("*") {
		name := filepath.Base(path)
		if pid, err := strconv.Atoi(strings.TrimPrefix(name, cgroupPrefix)); err == nil && syscall.Kill(pid, 0) != nil {
			removeCgroups(name) // of a killed run
		}
	}

	restore, err := delegate()
	if err != nil {
		return 1, err
	}
	defer restore()
	name := cgroupPrefix + strconv.Itoa(os.Getpid())
	defer removeCgroups(name)
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends, not the process
	first := exec.Command("/proc/self/exe", os.Args[1:]...)
	first.Env = append(os.Environ(), stageVariable+"="+stageInit, cgroupVariable+"="+name)
	first.Stdin, first.Stdout, first.Stderr = os.Stdin, os.Stdout, os.Stderr
	first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := first.Start(); err != nil {
		return 1, fmt.Errorf("new namespaces: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		for range signals {
			first.Process.Kill()
		}
	}()
	return exitCode(first.Wait())
}

func exitCode(err error) (int, error) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// Missing returns an error that names what this machine lacks to run a cluster.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: it makes namespaces, mounts and control groups")
	}
	var missing []string
	for _, program := range []string{"containerd", "ctr", "runc", "iptables", "ip", "buildah", "busybox", "curl", pluginDirectory + "/bridge"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("a cluster needs %s: make packages installs them on Debian", strings.Join(missing, ", "))
	}
	_, err := hierarchies()
	return err
}

// hierarchies returns the root directories of control groups: one in version 2, one per controller in version 1.
func hierarchies() ([]string, error) {
	if !cgroupV1() {
		return []string{cgroupRoot}, nil
	}
	var found []string
	for _, controller := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "hugetlb"} {
		if path := filepath.Join(cgroupRoot, controller); exists(filepath.Join(path, "cgroup.procs")) {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("a cluster needs control groups: there are none at %s", cgroupRoot)
	}
	return found, nil
}

// delegate enables the controllers that kubelet needs for groups below the root, in version 2. The returned function disables
// those that it has enabled.
func delegate() (restore func(), err error) {
	const file = cgroupRoot + "/cgroup.subtree_control"
	if cgroupV1() {
		return func() {}, nil
	}
	there, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	enabled, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var added []string
	restore = func() {
		for _, controller := range added {
			os.WriteFile(file, []byte("-"+controller), 0) // fails if another group uses it
		}
	}
	for _, controller := range []string{"cpuset", "cpu", "memory", "pids", "hugetlb"} {
		if !slices.Contains(strings.Fields(string(there)), controller) || slices.Contains(strings.Fields(string(enabled)), controller) {
			continue
		}
		if err := os.WriteFile(file, []byte("+"+controller), 0); err != nil {
			restore()
			return nil, fmt.Errorf("a cluster needs control groups of its own, and %w (in a container: run it with the host's cgroup namespace)", err)
		}
		added = append(added, controller)
	}
	return restore, nil
}

// cgroupV1 reports whether each controller has a hierarchy of its own.
func cgroupV1() bool { return !exists(filepath.Join(cgroupRoot, "cgroup.controllers")) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// cgroups returns the control groups that a process of this program created, or those of all such processes for "*", in all
// hierarchies.
func cgroups(process string) []string {
	var found []string
	for _, parent := range []string{cgroupRoot, cgroupRoot + "/*"} {
		paths, err := filepath.Glob(filepath.Join(parent, cgroupPrefix+process))
		if err != nil {
			panic(err) // only an invalid pattern fails
		}
		found = append(found, paths...)
	}
	return found
}

// removeCgroups removes the group with a name in all hierarchies. It retries, because killed processes leave a group with a delay.
func removeCgroups(name string) {
	roots := cgroups(strings.TrimPrefix(name, cgroupPrefix))
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for range 50 {
		left := false
		for _, root := range roots {
			left = !removeTree(root) || left
		}
		if !left {
			return
		}
		<-ticker.C
	}
	fmt.Fprintf(os.Stderr, "control groups %s are left below %s\n", name, cgroupRoot)
}

// removeTree removes the directories of a tree. Its files belong to the kernel and disappear with them.
func removeTree(path string) bool {
	entries, err := os.ReadDir(path)
	if err != nil {
		return os.IsNotExist(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeTree(filepath.Join(path, entry.Name()))
		}
	}
	return syscall.Rmdir(path) == nil
}

// inner is the init process: it prepares the namespaces, starts the test, and reaps child processes until the test ends.
func inner() (int, error) {
	executable, err := os.Executable()
	if err != nil {
		return 1, err
	}
	if err := furnish(os.Getenv(cgroupVariable)); err != nil {
		return 1, err
	}
	temporary := filepath.Join(state, "tmp")
	if err := errors.Join(os.Mkdir(temporary, 0o755), os.Setenv("TMPDIR", temporary), os.Setenv(stageVariable, stageInside)); err != nil {
		return 1, err
	}
	test, err := os.StartProcess(executable, os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 1, err
	}
	for {
		var status syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return 1, fmt.Errorf("wait: %w", err)
		case pid == test.Pid && status.Signaled():
			return 1, fmt.Errorf("the test was ended by signal %d", status.Signal())
		case pid == test.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// sysctls are the settings that kubelet requires. It finds them in files mounted over those of the host, and changes nothing.
var sysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

func furnish(cgroup string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	// Directories in which containerd, the network plugins and kubelet leave files.
	for _, path := range []string{"/run", "/var/lib", "/var/log"} {
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", path, err)
		}
	}
	if err := os.Mkdir(state, 0o755); err != nil {
		return err
	}
	for name, value := range sysctls {
		file := filepath.Join(state, "sysctl-"+strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		if over := filepath.Join("/proc/sys", name); exists(over) {
			if err := syscall.Mount(file, over, "", syscall.MS_BIND, ""); err != nil {
				return fmt.Errorf("mounting over %s: %w", over, err)
			}
		}
	}
	for _, arguments := range []string{
		"link set lo up",
		"link add node type veth peer name nowhere",
		"link set nowhere up",
		"link set node up",
		"address add " + nodeAddress + "/24 dev node",
		"route add default dev node",
	} {
		if output, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", arguments, err, output)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	parents, err := hierarchies()
	if err != nil {
		return err
	}
	for _, parent := range parents {
		group := filepath.Join(parent, cgroup)
		if err := os.Mkdir(group, 0o755); err != nil {
			return fmt.Errorf("control group: %w", err)
		}
		// In version 1 a new cpuset group has no CPUs and no memory nodes.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if all, err := os.ReadFile(filepath.Join(parent, file)); err == nil && cgroupV1() {
				if err := os.WriteFile(filepath.Join(group, file), all, 0); err != nil {
					return fmt.Errorf("control group: %w", err)
				}
			}
		}
	}
	return nil
}
