import { Controller, Injectable, Module } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';

export interface User {
  id: string;
  name: string;
  email: string;
  password: string;
}

@Injectable()
export class AuthService {
  private readonly users: User[] = [
    { id: 'user1', name: 'Ada', email: 'ada@example.com', password: 'one' },
    { id: 'user2', name: 'Grace', email: 'grace@example.com', password: 'two' },
    { id: 'user3', name: 'Edsger', email: 'edsger@example.com', password: 'three' },
  ];

  getUser(id: string): Omit<User, 'password'> | null {
    const user = this.users.find((u) => u.id === id);
    if (!user) return null;
    const { password, ...known } = user;
    return known;
  }
}

@Controller()
export class AuthController {
  constructor(private readonly auth: AuthService) {}

  @MessagePattern('user.getUser')
  getUser(@Payload() id: string) {
    return this.auth.getUser(id);
  }
}

@Module({ controllers: [AuthController], providers: [AuthService] })
export class AuthModule {}
