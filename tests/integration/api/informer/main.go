// A dynamic informer of client-go on guests, as a controller would have it.
//
// For every line on standard input it prints one line of JSON: what its store holds, how many events its handlers were
// given, and what it has asked for. It says nothing else, and ends with its input.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

var guests = schema.GroupVersionResource{Group: "guestwire.io", Version: "v1", Resource: "guests"}

// Request is a question to the API; Status is 0 when there was no answer.
type Request struct {
	Query  string `json:"query"`
	Status int    `json:"status"`
}

// Told is what is printed.
type Told struct {
	Synced   bool                      `json:"synced"`
	Store    map[string]map[string]any `json:"store"`
	Events   map[string]int            `json:"events"`
	Requests []Request                 `json:"requests"`
}

// Recorder remembers requests and counts events.
type Recorder struct {
	mutex    sync.Mutex
	next     http.RoundTripper
	requests []Request
	events   map[string]int
}

func (r *Recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.next.RoundTrip(request)
	asked := Request{Query: request.URL.RawQuery}
	if response != nil {
		asked.Status = response.StatusCode
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.requests = append(r.requests, asked)
	return response, err
}

func (r *Recorder) count(event string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.events[event]++
}

func (r *Recorder) told(informer cache.SharedIndexInformer) Told {
	store := map[string]map[string]any{}
	for _, key := range informer.GetStore().ListKeys() {
		if item, there, _ := informer.GetStore().GetByKey(key); there {
			store[key] = item.(*unstructured.Unstructured).Object
		}
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	events := map[string]int{}
	for event, count := range r.events {
		events[event] = count
	}
	return Told{informer.HasSynced(), store, events, append([]Request{}, r.requests...)}
}

func run() error {
	kubeconfig := flag.String("kubeconfig", "", "a kubeconfig file")
	server := flag.String("server", "", "an address, in place of the kubeconfig's")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags(*server, *kubeconfig)
	if err != nil {
		return err
	}
	recorder := &Recorder{events: map[string]int{}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		recorder.next = next
		return recorder
	})
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	informer := factory.ForResource(guests).Informer()
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { recorder.count("ADDED") },
		UpdateFunc: func(any, any) { recorder.count("MODIFIED") },
		DeleteFunc: func(any) { recorder.count("DELETED") },
	})
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)
	answers := json.NewEncoder(os.Stdout)
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		if err := answers.Encode(recorder.told(informer)); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "informer:", err)
		os.Exit(1)
	}
}
