// Reads KubeVirt's subresources as virtctl does: its three commands, the requests of its client, and what it prints.
//
// KubeVirt's modules are not used. Restated here are, of v1.9: how the client is made (client-go/kubecli,
// GetKubevirtClientFromRESTConfig), what it asks (client-go/kubevirt/typed/core/v1, GuestOsInfo, UserList,
// FilesystemList), the types (api/core/v1), and the commands (pkg/virtctl/vm). More strictly than virtctl, a field that
// the types do not have is an error, and so is a list without its items.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// OSInfo is VirtualMachineInstanceGuestOSInfo.
type OSInfo struct {
	Name          string `json:"name,omitempty"`
	KernelRelease string `json:"kernelRelease,omitempty"`
	Version       string `json:"version,omitempty"`
	PrettyName    string `json:"prettyName,omitempty"`
	VersionID     string `json:"versionId,omitempty"`
	KernelVersion string `json:"kernelVersion,omitempty"`
	Machine       string `json:"machine,omitempty"`
	ID            string `json:"id,omitempty"`
}

// User is VirtualMachineInstanceGuestOSUser.
type User struct {
	UserName  string  `json:"userName"`
	Domain    string  `json:"domain,omitempty"`
	LoginTime float64 `json:"loginTime,omitempty"`
}

// Disk is VirtualMachineInstanceFileSystemDisk.
type Disk struct {
	Serial  string `json:"serial,omitempty"`
	BusType string `json:"busType"`
}

// Filesystem is VirtualMachineInstanceFileSystem.
type Filesystem struct {
	DiskName       string `json:"diskName"`
	MountPoint     string `json:"mountPoint"`
	FileSystemType string `json:"fileSystemType"`
	UsedBytes      int    `json:"usedBytes"`
	TotalBytes     int    `json:"totalBytes"`
	Disk           []Disk `json:"disk,omitempty"`
}

// FilesystemInfo is VirtualMachineInstanceFileSystemInfo.
type FilesystemInfo struct {
	Filesystems []Filesystem `json:"disks"`
}

// Command is GuestAgentCommandInfo.
type Command struct {
	Name    string `json:"name"`
	Enabled bool   `json:"enabled,omitempty"`
}

// AgentInfo is VirtualMachineInstanceGuestAgentInfo.
type AgentInfo struct {
	metav1.TypeMeta   `json:",inline"`
	GAVersion         string         `json:"guestAgentVersion,omitempty"`
	SupportedCommands []Command      `json:"supportedCommands,omitempty"`
	Hostname          string         `json:"hostname,omitempty"`
	OS                OSInfo         `json:"os,omitempty"`
	Timezone          string         `json:"timezone,omitempty"`
	UserList          []User         `json:"userList,omitempty"`
	FSInfo            FilesystemInfo `json:"fsInfo,omitempty"`
	FSFreezeStatus    string         `json:"fsFreezeStatus,omitempty"`
}

// UserList is VirtualMachineInstanceGuestOSUserList.
type UserList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []User `json:"items"`
}

// FilesystemList is VirtualMachineInstanceFileSystemList.
type FilesystemList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Filesystem `json:"items"`
}

// DeepCopyObject makes it a runtime.Object, as generated code does for KubeVirt.
func (in *UserList) DeepCopyObject() runtime.Object {
	out := *in
	out.Items = append([]User(nil), in.Items...)
	return &out
}

// DeepCopyObject makes it a runtime.Object.
func (in *FilesystemList) DeepCopyObject() runtime.Object {
	out := *in
	out.Items = append([]Filesystem(nil), in.Items...)
	return &out
}

// Recorder keeps what was asked, and the last answer as it came.
type Recorder struct {
	next http.RoundTripper
	body []byte
}

// RoundTrip tells every request on standard error.
func (r *Recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	fmt.Fprintln(os.Stderr, request.Method, request.URL.RequestURI(), request.Header.Get("Accept"))
	response, err := r.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	r.body, err = io.ReadAll(response.Body)
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(r.body))
	return response, err
}

func client(config *rest.Config, recorder *Recorder) (*rest.RESTClient, error) {
	version := schema.GroupVersion{Group: "kubevirt.io", Version: "v1"}
	scheme := runtime.NewScheme() // KubeVirt's knows VMs and the like, but none of these types either
	metav1.AddToGroupVersion(scheme, version)
	shallow := *config
	shallow.GroupVersion = &version
	shallow.NegotiatedSerializer = serializer.WithoutConversionCodecFactory{
		CodecFactory: serializer.NewCodecFactory(scheme),
	}
	shallow.APIPath = "/apis"
	shallow.ContentType = runtime.ContentTypeJSON
	shallow.Wrap(func(next http.RoundTripper) http.RoundTripper {
		recorder.next = next
		return recorder
	})
	return rest.RESTClientFor(&shallow)
}

func get(client *rest.RESTClient, namespace, name, subresource string) rest.Result {
	return client.Get().
		AbsPath("/apis/subresources.kubevirt.io/v1").
		Namespace(namespace).
		Resource("virtualmachineinstances").
		Name(name).
		SubResource(subresource).
		Do(context.Background())
}

// strictly decodes once more what virtctl has decoded.
func strictly(body []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func guestOSInfo(client *rest.RESTClient, recorder *Recorder, namespace, name string) (any, error) {
	info := AgentInfo{}
	raw, err := get(client, namespace, name, "guestosinfo").Raw()
	if err == nil {
		err = json.Unmarshal(raw, &info)
	}
	if err != nil {
		return nil, fmt.Errorf("Error getting guestosinfo of VirtualMachineInstance %s, %v", name, err)
	}
	return info, strictly(recorder.body, &AgentInfo{})
}

func userList(client *rest.RESTClient, recorder *Recorder, namespace, name string) (any, error) {
	list, strict := UserList{}, UserList{}
	if err := get(client, namespace, name, "userlist").Into(&list); err != nil {
		return nil, fmt.Errorf("Error listing users of VirtualMachineInstance %s, %v", name, err)
	}
	if err := strictly(recorder.body, &strict); err != nil {
		return nil, err
	}
	if strict.Items == nil {
		return nil, fmt.Errorf("userlist: no items in %s", recorder.body)
	}
	return list, nil
}

func filesystemList(client *rest.RESTClient, recorder *Recorder, namespace, name string) (any, error) {
	list, strict := FilesystemList{}, FilesystemList{}
	if err := get(client, namespace, name, "filesystemlist").Into(&list); err != nil {
		return nil, fmt.Errorf("Error listing filesystems of VirtualMachineInstance %s, %v", name, err)
	}
	if err := strictly(recorder.body, &strict); err != nil {
		return nil, err
	}
	if strict.Items == nil {
		return nil, fmt.Errorf("filesystemlist: no items in %s", recorder.body)
	}
	return list, nil
}

func run() error {
	kubeconfig := flag.String("kubeconfig", "", "a kubeconfig file")
	server := flag.String("server", "", "an address, in place of the kubeconfig's")
	namespace := flag.String("namespace", "default", "where the VMI is")
	as := flag.String("as", "", "a user to act as")
	flag.Parse()
	commands := map[string]func(*rest.RESTClient, *Recorder, string, string) (any, error){
		"guestosinfo": guestOSInfo, "userlist": userList, "fslist": filesystemList,
	}
	command := commands[flag.Arg(0)]
	if command == nil || flag.NArg() != 2 {
		return fmt.Errorf("usage: subresources [options] guestosinfo|userlist|fslist VMI")
	}
	config, err := clientcmd.BuildConfigFromFlags(*server, *kubeconfig)
	if err != nil {
		return err
	}
	config.Impersonate.UserName = *as
	recorder := &Recorder{}
	client, err := client(config, recorder)
	if err != nil {
		return err
	}
	told, err := command(client, recorder, *namespace, flag.Arg(1))
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(told, "", "  ")
	if err == nil {
		fmt.Printf("%s\n", string(data))
	}
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
