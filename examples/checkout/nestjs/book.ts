import { closeSync, existsSync, fsyncSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs';
import { Injectable, Logger, OnModuleDestroy } from '@nestjs/common';
import { RpcException } from '@nestjs/microservices';
import { settings } from './settings.js';

interface Line {
  key: string;
  did: 'charge' | 'refund';
  payment: string;
  amount: number;
}

/**
 * The provider's book: it does each thing once for a key, however often it is
 * asked. A file has one line for each thing that was done; yours is a table with a
 * unique index on the key.
 */
@Injectable()
export class Book implements OnModuleDestroy {
  private readonly logger = new Logger(Book.name);
  private readonly lines = new Map<string, Line>();
  private readonly file: number;

  constructor() {
    const text = existsSync(settings.book) ? readFileSync(settings.book, 'utf8') : '';
    const whole = text.slice(0, text.lastIndexOf('\n') + 1); // without what a crash left of the last line
    for (const line of whole.split('\n').filter(Boolean)) this.remember(JSON.parse(line));
    this.file = openSync(settings.book, 'a');
    truncateSync(settings.book, Buffer.byteLength(whole));
  }

  /** Charges once for a key, and never after a refund of it. */
  charge(key: string, amount: number): Line {
    if (this.find('refund', key)) throw new RpcException({ status: 'error', code: 'refunded', message: 'it was called off before' });
    return this.find('charge', key) ?? this.append({ key, did: 'charge', payment: `pay-${key}`, amount });
  }

  /**
   * Gives back what was charged for a key, once. Where nothing was, it is noted
   * all the same: the charge may be on its way yet, and has to be refused then.
   */
  refund(key: string): Line {
    const { payment = '', amount = 0 } = this.find('charge', key) ?? {};
    return this.find('refund', key) ?? this.append({ key, did: 'refund', payment, amount });
  }

  onModuleDestroy() {
    closeSync(this.file);
  }

  private find(did: Line['did'], key: string) {
    return this.lines.get(`${did} ${key}`);
  }

  // Nothing goes by a line before it is on the disk.
  private append(line: Line): Line {
    writeSync(this.file, JSON.stringify(line) + '\n');
    fsyncSync(this.file);
    this.logger.log(`${line.did} of ${line.amount}: ${line.key}`);
    return this.remember(line);
  }

  private remember(line: Line): Line {
    this.lines.set(`${line.did} ${line.key}`, line);
    return line;
  }
}
