package routing

import "testing"

func BenchmarkDecodeRoute(b *testing.B) {
	documents := map[string]string{
		"smallest": `{"path":"/orders/*","service":"orders"}`,
		"ordinary": `{"hosts":["api.example.com"],"path":"/orders/:id/*rest","methods":["GET","POST"],"headers":{"X-Version":"2"},` +
			`"service":"orders","strip_prefix":"/orders","timeout":"10s","retries":2,"plugins":{"headers":{"request":{"set":{"X-A":"b"}}}}}`,
		"yaml": "path: /orders/*\nservice: orders\n",
	}
	for name, doc := range documents {
		b.Run(name, func(b *testing.B) {
			value := []byte(doc)
			b.ReportAllocs()
			for b.Loop() {
				if _, faults := DecodeRoute(value); faults != nil {
					b.Fatal(faults)
				}
			}
		})
	}
}
