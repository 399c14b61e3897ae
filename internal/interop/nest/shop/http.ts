// What the seed keeps in utils: how HTTP answers, errors and logs look.
import { ArgumentsHost, CallHandler, Catch, ExceptionFilter, ExecutionContext, HttpException, HttpStatus, Injectable, Logger, NestInterceptor, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { NextFunction, Request, Response } from 'express';
import { map } from 'rxjs';

export const ResponseMessage = (message: string) => SetMetadata('message', message);

/** Wraps what a route returns. */
@Injectable()
export class ResponseInterceptor implements NestInterceptor {
  constructor(private readonly reflector: Reflector) {}

  intercept(context: ExecutionContext, next: CallHandler) {
    const message = this.reflector.get<string>('message', context.getHandler());
    return next.handle().pipe(map((data) => ({ success: true, message, timestamp: new Date().toISOString(), data })));
  }
}

/** Answers what a route throws. */
@Catch()
export class HttpExceptionFilter implements ExceptionFilter {
  private readonly logger = new Logger(HttpExceptionFilter.name);

  catch(exception: unknown, host: ArgumentsHost) {
    const request = host.switchToHttp().getRequest<Request>();
    const response = host.switchToHttp().getResponse<Response>();
    const known = exception instanceof HttpException;
    if (!known) this.logger.error(exception);
    const statusCode = known ? exception.getStatus() : HttpStatus.INTERNAL_SERVER_ERROR;
    const body = known ? exception.getResponse() : 'Internal server error';
    const message = typeof body === 'string' ? body : (body as { message: string | string[] }).message;
    response.status(statusCode).json({ success: false, statusCode, message, timestamp: new Date().toISOString(), path: request.url, data: null });
  }
}

const logger = new Logger('HTTP');

export function logRequests(request: Request, response: Response, next: NextFunction) {
  const begun = Date.now();
  response.on('finish', () => logger.log(`${request.method} ${request.originalUrl} ${response.statusCode} ${Date.now() - begun} ms`));
  next();
}
