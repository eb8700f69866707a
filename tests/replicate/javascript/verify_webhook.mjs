// Verifies a webhook as a receiver would: {headers, body, secret} on stdin, true or false on stdout.
import { text } from "node:stream/consumers";
import { validateWebhook } from "replicate";

const { headers, body, secret } = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(await validateWebhook({ headers, body }, secret)));
