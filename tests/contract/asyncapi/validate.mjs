// Reads an AsyncAPI document from standard input; prints what AsyncAPI's own parser says about it, as JSON.
import {Parser} from '@asyncapi/parser';
import {readFileSync} from 'node:fs';

const {document, diagnostics} = await new Parser().parse(readFileSync(0, 'utf8'));
console.log(JSON.stringify({
  channels: document ? document.channels().all().map((channel) => channel.address()) : null,
  messages: document ? document.messages().all().map((message) => message.name()) : null,
  problems: diagnostics.filter(({severity}) => severity <= 1).map(({message, path}) => `${path.join('.')}: ${message}`),
  hints: diagnostics.filter(({severity}) => severity > 1).map(({message, path}) => `${path.join('.')}: ${message}`),
}));
