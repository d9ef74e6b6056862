// publish_limit publishes as fast as the Go client can, each message acknowledged: the limit that BENCH=publish measures against.
//
//	publish_limit URL SUBJECT_PREFIX MESSAGES BYTES WINDOW [HEADERS]
//
// prints the seconds it took. HEADERS, as "name: value" lines, are sent with every message, beside its message id.
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

func main() {
	if len(os.Args) != 6 && len(os.Args) != 7 {
		log.Fatal("usage: publish_limit URL SUBJECT_PREFIX MESSAGES BYTES WINDOW [HEADERS]")
	}
	headers := map[string]string{}
	for _, line := range strings.Split(strings.Join(os.Args[6:], ""), "\n") {
		if name, value, found := strings.Cut(line, ": "); found {
			headers[name] = strings.TrimSpace(value)
		}
	}
	number := func(text string) int {
		value, err := strconv.Atoi(text)
		if err != nil {
			log.Fatal(err)
		}
		return value
	}
	messages, size, window := number(os.Args[3]), number(os.Args[4]), number(os.Args[5])
	connection, err := nats.Connect(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	refused := 0
	stream, err := connection.JetStream(
		nats.PublishAsyncMaxPending(window),
		nats.PublishAsyncErrHandler(func(nats.JetStream, *nats.Msg, error) { refused++ }),
	)
	if err != nil {
		log.Fatal(err)
	}
	body := []byte(strings.Repeat("x", size))
	began := time.Now()
	for index := 0; index < messages; index++ {
		message := nats.NewMsg(fmt.Sprintf("%s.%d.userlist", os.Args[2], index))
		message.Data = body
		for name, value := range headers {
			message.Header.Set(name, value)
		}
		message.Header.Set(nats.MsgIdHdr, fmt.Sprintf("limit-%d", index))
		if _, err := stream.PublishMsgAsync(message, nats.StallWait(time.Minute)); err != nil {
			log.Fatal(err)
		}
	}
	<-stream.PublishAsyncComplete()
	if refused > 0 {
		log.Fatalf("%d messages were not acknowledged", refused)
	}
	fmt.Println(time.Since(began).Seconds())
}
