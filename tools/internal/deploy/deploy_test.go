// Package deploy_test checks the files of deploy/ against the types of the programs that read them.
package deploy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"

	"example.com/ttrpc-starter/internal/proctest"
)

const dir = "../../../deploy"

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKubernetes decodes each object strictly: an unknown or a repeated field is an error.
func TestKubernetes(t *testing.T) {
	var deployment appsv1.Deployment
	var service corev1.Service
	var budget policyv1.PodDisruptionBudget
	var scaler autoscalingv2.HorizontalPodAutoscaler
	documents := bytes.Split(read(t, "kubernetes.yaml"), []byte("\n---\n"))
	objects := []any{&deployment, &service, &budget, &scaler}
	if len(documents) != len(objects) {
		t.Fatalf("%d objects, want %d", len(documents), len(objects))
	}
	for i, o := range objects {
		if err := yaml.UnmarshalStrict(documents[i], o); err != nil {
			t.Errorf("object %d: %v", i+1, err)
		}
	}
	labels := deployment.Spec.Template.Labels
	for what, selector := range map[string]map[string]string{
		"Deployment": deployment.Spec.Selector.MatchLabels, "Service": service.Spec.Selector,
		"PodDisruptionBudget": budget.Spec.Selector.MatchLabels,
	} {
		for key, value := range selector {
			if labels[key] != value {
				t.Errorf("the %s selects %s=%s, which the Pods do not have", what, key, value)
			}
		}
	}
	if service.Spec.ClusterIP != corev1.ClusterIPNone {
		t.Error("the Service is not headless")
	}
	pod := deployment.Spec.Template.Spec
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		s := c.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
			t.Errorf("container %s can write to its root or gain privileges", c.Name)
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			t.Errorf("container %s has no limit of memory or requests no CPU", c.Name)
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("container %s mounts %s, which is no volume", c.Name, m.Name)
			}
		}
	}
	if name := scaler.Spec.ScaleTargetRef.Name; name != deployment.Name {
		t.Errorf("the HorizontalPodAutoscaler scales %s", name)
	}
}

// TestPod runs the programs of the Pod with the flags that they have there, and makes a call through both.
func TestPod(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	if err := errors.Join(
		proctest.Build(bin, "../../..", "./server", "./client", "./internal/dev/certs"),
		proctest.Build(bin, "../..", "./ttgate"),
	); err != nil {
		t.Fatal(err)
	}
	certs := exec.Command(proctest.Exe(bin, "certs"), "certs")
	certs.Dir = dir
	if p := proctest.Run(t, certs); p.ExitCode() != 0 {
		t.Fatal(p.Stderr())
	}
	shared := filepath.Join(filepath.Dir(strings.TrimPrefix(proctest.Socket(t), "unix://")), "app")
	if err := errors.Join(os.Mkdir(shared, 0o700), os.Chmod(shared, 0o777)); err != nil { // as an emptyDir is
		t.Fatal(err)
	}
	var deployment appsv1.Deployment
	first, _, _ := bytes.Cut(read(t, "kubernetes.yaml"), []byte("\n---\n"))
	if err := yaml.UnmarshalStrict(first, &deployment); err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("/run/app", shared, "/tls/tls.crt", dir+"/certs/server.pem",
		"/tls/tls.key", dir+"/certs/server-key.pem", "tcp://:8443", "tcp://127.0.0.1:0")
	command := func(program string, args []string) *exec.Cmd {
		cmd := exec.Command(proctest.Exe(bin, program))
		for _, a := range args {
			cmd.Args = append(cmd.Args, here.Replace(a))
		}
		return cmd
	}
	pod := deployment.Spec.Template.Spec
	server := proctest.Start(t, command("server", pod.InitContainers[0].Args))
	server.WaitFor("server start")
	if p := proctest.Run(t, command("client", pod.InitContainers[0].StartupProbe.Exec.Command[1:])); p.ExitCode() != 0 {
		t.Errorf("the startup probe: %s", p.Stderr())
	}
	gate := proctest.Start(t, command("ttgate", pod.Containers[0].Args))
	gate.WaitFor("backend up")
	gate.WaitFor("gate start")
	address := regexp.MustCompile(`tcp://(127[^"]+)`).FindStringSubmatch(gate.Stderr())[1]
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := client.Post("https://"+address+"/example.v1.Example/Method1", "application/json",
		strings.NewReader(`{"foo":"Foo","bar":"Bar"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != `{"foo":"Foo","bar":"Bar"}` {
		t.Errorf("HTTP %s: %s", resp.Status, body)
	}
}

func TestEnvoy(t *testing.T) {
	b, err := yaml.YAMLToJSONStrict(read(t, "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	bootstrap := new(bootstrapv3.Bootstrap)
	if err := protojson.Unmarshal(b, bootstrap); err != nil {
		t.Fatal(err)
	}
	if err := bootstrap.ValidateAll(); err != nil {
		t.Error(err)
	}
}

// TestNginx has nginx check its configuration, with names and files that are there.
func TestNginx(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/nginx"); err == nil {
		t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin") // where Debian has it, for root only
	}
	nginx := proctest.Program(t, "nginx")
	work := t.TempDir()
	certs := t.TempDir()
	if err := proctest.Build(certs, "../../..", "./internal/dev/certs"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(proctest.Exe(certs, "certs"), "certs")
	cmd.Dir = work
	if p := proctest.Run(t, cmd); p.ExitCode() != 0 {
		t.Fatal(p.Stderr())
	}
	part := regexp.MustCompile(`gate-\d\.example`).ReplaceAllString(string(read(t, "nginx.conf")), "127.0.0.1")
	part = strings.NewReplacer(
		"/etc/nginx/app.pem", work+"/certs/server.pem", "/etc/nginx/app-key.pem", work+"/certs/server-key.pem",
		"/etc/nginx/gates-ca.pem", work+"/certs/ca.pem", "listen 443", "listen 127.0.0.1:44443",
	).Replace(part)
	config := "pid " + work + "/nginx.pid;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		config += kind + "_temp_path " + work + "/" + kind + ";\n"
	}
	file := filepath.Join(work, "nginx.conf")
	if err := os.WriteFile(file, []byte(config+part+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p := proctest.Run(t, exec.Command(nginx, "-t", "-e", "stderr", "-c", file)); p.ExitCode() != 0 {
		t.Error(p.Stderr())
	}
}
