// Package router runs pipelines. It builds a Watermill Router for each, puts lanes around every subscriber, publishes what
// handlers produce until it is confirmed, and is the only place that acks.
//
// [New] builds a [Host] from a [Config] without any I/O, [Host.Start] brings it up, [Host.Stop] takes it down in stages.
//
// The way of a message: the transport's subscriber hands it to the pipeline's lanes; they emit a copy of it to Watermill when it
// is its key's turn; the pipeline's chain (recorder, middleware list, recoverer, handler) turns it into messages;
// the publisher sends each to its destination and blocks until all are confirmed; Watermill acks the copy; the lanes ack
// the original and settle its reply.
package router
